"""Tells the memory service of incidents. The same for every kind of cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import structlog

from sternpost_operator.resources.training_job_status import Incident

_logger = structlog.get_logger(__name__)

TIMEOUT_SECONDS = 2.0
SOURCE = "sternpost-operator"
MAX_TOKEN_BYTES = 64 * 1024
_FIRST_BACK_OFF_SECONDS = 1.0
_MAX_BACK_OFF_SECONDS = 30.0


def observation(job: str, incident: Incident) -> dict[str, Any]:
    """The body for `POST /v1/spaces/SPACE/observations`. The node, if one is named, is what the text is about first."""
    entities = [f"node/{incident.node}"] if incident.node else []
    attributes = {"cause": incident.cause, "excluded": incident.excluded}
    return {
        "observations": [
            {
                "text": incident.text,
                "occurredAt": incident.at.timestamp(),
                "source": SOURCE,
                "entities": [*entities, f"job/{job}"],
                "attributes": {name: value for name, value in attributes.items() if value},
            }
        ]
    }


class MemoryClient:
    """The memory service, asked less often while it does not answer.

    `token_file` holds the bearer token; it is read anew for each request, for whoever writes it renews it.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        clock: Callable[[], float] = time.monotonic,
        *,
        token_file: Path | None = None,
    ) -> None:
        self._client = client
        self._clock = clock
        self._token_file = token_file
        self._not_before: dict[str, float] = {}
        self._back_off: dict[str, float] = {}

    async def record(self, url: str, space: str, job: str, incident: Incident) -> bool:
        """Tell it; whether it has taken the incident. A failure is logged, and the next call tries again."""
        if self.waits(url):
            return False
        endpoint = f"{url.rstrip('/')}/v1/spaces/{space}/observations"
        try:
            response = await self._client.post(
                endpoint,
                json=observation(job, incident),
                headers={"Idempotency-Key": incident.id, **await self._authorization()},
                timeout=TIMEOUT_SECONDS,
            )
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            self._failed(url, incident, repr(error))
            return False
        if not response.is_success:
            self._failed(url, incident, f"{response.status_code} {response.text[:500]}")
            return False
        self._not_before.pop(url, None)
        self._back_off.pop(url, None)
        return True

    def waits(self, url: str) -> bool:
        """Whether the service failed so lately that it is not asked just now."""
        return self._clock() < self._not_before.get(url, 0.0)

    async def _authorization(self) -> dict[str, str]:
        return {} if self._token_file is None else await bearer(self._token_file)

    def _failed(self, url: str, incident: Incident, problem: str) -> None:
        pause = self._back_off.get(url, _FIRST_BACK_OFF_SECONDS)
        self._not_before[url] = self._clock() + pause
        self._back_off[url] = min(pause * 2, _MAX_BACK_OFF_SECONDS)
        _logger.warning(
            "incident not recorded, trying again", url=url, incident=incident.id, error=problem, seconds=pause
        )


async def bearer(token_file: Path) -> dict[str, str]:
    """The header with the token in a file; raises `OSError`, and `ValueError` where there is none in it."""
    return {"Authorization": f"Bearer {await asyncio.to_thread(_read_token, token_file)}"}


def _read_token(path: Path) -> str:
    """The token in a file; raises `OSError`, and `ValueError` where there is none in it."""
    with path.open("rb") as file:
        token = file.read(MAX_TOKEN_BYTES).decode("ascii", "replace").strip()
    if not token or not token.isprintable():
        raise ValueError(f"{path} holds no token")
    return token
