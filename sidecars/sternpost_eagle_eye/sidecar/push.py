"""Sends this worker's vector to whoever judges: to itself, or to worker 0 over HTTP."""

from __future__ import annotations

import httpx
import structlog

from sternpost_eagle_eye.attempt import Attempt, Worker
from sternpost_eagle_eye.sidecar.court import Court
from sternpost_eagle_eye.sidecar.own_metrics import OwnMetrics
from sternpost_eagle_eye.sidecar.token import TokenFile
from sternpost_eagle_eye.vector import Vector

TIMEOUT_SECONDS = 2.0

log = structlog.get_logger()


class Pusher:
    """One vector at a time. None is ever queued: the next one says all that this one did."""

    def __init__(
        self, client: httpx.AsyncClient, court: Court, token: TokenFile, pod_uid: str, metrics: OwnMetrics
    ) -> None:
        self._client = client
        self._court = court
        self._token = token
        self._pod_uid = pod_uid
        self._metrics = metrics
        self._outcome = "ok"

    async def push(self, vector: Vector, attempt: Attempt) -> bool:
        """Whether it arrived, or never will because the Pod has no part in the attempt. Raises nothing but cancellation."""
        judge = attempt.judge()
        if judge is None or all(member.uid != self._pod_uid for _, member in attempt.members()):
            return True
        if judge.uid == self._pod_uid:
            reason = self._court.take(vector)
            outcome, detail = ("ok", "") if reason is None else ("refused", reason)
        else:
            outcome, detail = await self._send(vector, judge)
        self._metrics.pushes.labels(outcome).inc()
        if outcome != self._outcome:  # once for each change, not once a second
            log.info("vectors to worker 0", outcome=outcome, before=self._outcome, detail=detail[:300], pod=judge.pod)
            self._outcome = outcome
        return outcome == "ok"

    async def _send(self, vector: Vector, judge: Worker) -> tuple[str, str]:
        host = f"[{judge.address}]" if ":" in judge.address else judge.address
        try:
            response = await self._client.post(
                f"http://{host}:{judge.eagle_eye_port}/v1/vectors",
                content=vector.to_json(),
                headers={"Authorization": f"Bearer {self._token.value()}", "Content-Type": "application/json"},
                timeout=TIMEOUT_SECONDS,
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return "unreachable", f"{type(error).__name__}: {error}"
        except (OSError, UnicodeDecodeError) as error:
            return "no-token", str(error)
        if response.status_code == 204:
            return "ok", ""
        # 409: one of both has not yet read the newest Attempt; the next vector will do.
        return ("stale" if response.status_code == 409 else "refused"), f"{response.status_code} {response.text}"
