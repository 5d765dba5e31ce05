"""Scheduler, kubelets and eagle-eyes for a bare API server: Pods are bound, run at once, tell progress, and end when told.

Each Pod has an address of its own on the loopback; worker 0's answers the operator's progress stream as eagle-eye does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any, TypeVar

from aiohttp import web
from kubernetes.aio.client.configuration import Configuration
from prometheus_client import CollectorRegistry

from sternpost_operator.cluster.kubernetes.client import KubernetesClient
from sternpost_operator.cluster.kubernetes.errors import ApiError, NotFoundError
from sternpost_operator.cluster.kubernetes.paths import ATTEMPTS, NODES, PODS, TRAINING_JOBS, Kind
from sternpost_operator.metrics.operator_metrics import OperatorMetrics
from sternpost_operator.resources import reserved

T = TypeVar("T")
STEP_SECONDS = 0.25
SIDECAR = "sternpost-eagle-eye"
_SHARED = (PODS, ATTEMPTS)
_JOB = web.AppKey("job", tuple[str, str])


class FakeNodes:
    """Nodes of an API server, in a thread of their own. Close it with `close`."""

    def __init__(self, configuration: Configuration, *, nodes: int = 3) -> None:
        self._configuration = configuration
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._pods: dict[str, dict[str, Any]] = {}
        self._attempts: dict[tuple[str, str], dict[str, Any]] = {}
        self._addresses: dict[str, str] = {}
        self._servers: dict[str, web.AppRunner] = {}
        self._steps: dict[str, int] = {}
        self._first: dict[str, float] = {}
        self._failed: set[tuple[str, str]] = set()
        self._turn = 0
        self.created: list[tuple[str, str, str]] = []
        """Namespace, name and uid of each Pod, as they came."""
        self.lost: dict[str, float] = {}
        """Nodes on which nothing does anything any more, and since when."""
        self.silent = False
        """Whether the eagle-eyes tell nothing."""
        self.names = [f"node-{number}" for number in range(nodes)]
        self._run(self._start()).result(60)

    def close(self) -> None:
        self._run(self._stop()).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # --- what a test asks or does ---

    def pods(self, namespace: str) -> dict[str, dict[str, Any]]:
        """The Pods there are, by name."""
        return {
            pod["metadata"]["name"]: pod
            for pod in list(self._pods.values())
            if pod["metadata"]["namespace"] == namespace
        }

    def lose_node(self, name: str) -> None:
        """The node is not ready any more, and nothing on it confirms anything."""
        self.lost[name] = datetime.now(UTC).timestamp()
        self._run(self._ready(name, ready=False)).result(30)

    def fail_rank(self, namespace: str, job: str) -> None:
        """Worker 0's rank of the current attempt fails."""
        attempt = self._attempts[namespace, job]
        self._failed.add((namespace, attempt["spec"]["id"]))

    def put_status(self, namespace: str, jobs: list[str], status: dict[str, Any]) -> None:
        """Give jobs a status, as an operator before has left them."""

        async def put(job: str) -> None:
            await self._client.merge(TRAINING_JOBS, namespace, job, {"status": status}, subresource="status")

        async def put_all() -> None:
            await asyncio.gather(*(put(job) for job in jobs))

        self._run(put_all()).result(120)

    def step(self, namespace: str, job: str) -> int:
        """The last step that was told."""
        attempt = self._attempts.get((namespace, job))
        return self._steps.get(attempt["spec"]["id"], 0) if attempt else 0

    # --- the nodes ---

    def _run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _start(self) -> None:
        self._client = KubernetesClient(self._configuration, OperatorMetrics(CollectorRegistry()))
        self._client._api.user_agent = "fake-nodes"
        for name in self.names:
            labels = {"kubernetes.io/hostname": name}
            manifest = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
            await self._client.apply(NODES, None, manifest, manager="fake-nodes")
            await self._ready(name, ready=True)
        self._tasks = [asyncio.create_task(self._watch(kind)) for kind in _SHARED]
        self._tasks.append(asyncio.create_task(self._tick()))

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        for runner in self._servers.values():
            await runner.cleanup()
        await self._client.aclose()
        await asyncio.sleep(0.3)  # aiohttp's connections are closed a little after their session says so
        assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends

    async def _ready(self, name: str, *, ready: bool) -> None:
        now = _rfc3339(datetime.now(UTC))
        condition = {
            "type": "Ready",
            "status": "True" if ready else "Unknown",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        await self._client.merge(NODES, None, name, {"status": {"conditions": [condition]}}, subresource="status")

    async def _watch(self, kind: Kind) -> None:
        while True:
            with contextlib.suppress(OSError):
                found = await self._client.list(kind, None)
                seen = {item["metadata"]["uid"] for item in found["items"]}
                if kind is PODS:
                    for uid in set(self._pods) - seen:
                        self._pods.pop(uid)
                for item in found["items"]:
                    self._see(kind, "ADDED", item)
                query = {"resourceVersion": found["metadata"]["resourceVersion"]}
                async for event in self._client.watch(kind, None, query):
                    if event["type"] == "ERROR":
                        break
                    self._see(kind, event["type"], event["object"])
            await asyncio.sleep(0.2)

    def _see(self, kind: Kind, event: str, item: dict[str, Any]) -> None:
        metadata = item["metadata"]
        if event == "BOOKMARK":
            return
        if kind is ATTEMPTS:
            key = (metadata["namespace"], metadata["name"])
            if event == "DELETED":
                self._attempts.pop(key, None)
            else:
                self._attempts[key] = item
            return
        if "sternpost.dev/job" not in (metadata.get("labels") or {}):
            return
        if event == "DELETED":
            self._pods.pop(metadata["uid"], None)
            return
        if metadata["uid"] not in self._pods:
            self.created.append((metadata["namespace"], metadata["name"], metadata["uid"]))
        self._pods[metadata["uid"]] = item

    async def _tick(self) -> None:
        while True:
            for pod in list(self._pods.values()):
                with contextlib.suppress(OSError):
                    await self._care(pod)
            for (_, _), attempt in list(self._attempts.items()):
                identity = attempt["spec"]["id"]
                if attempt["spec"]["action"] == "run" and not self.silent:
                    self._first.setdefault(identity, datetime.now(UTC).timestamp())
                    self._steps[identity] = self._steps.get(identity, 0) + 1
            await asyncio.sleep(STEP_SECONDS)

    async def _care(self, pod: dict[str, Any]) -> None:
        metadata, spec = pod["metadata"], pod["spec"]
        namespace, name, node = metadata["namespace"], metadata["name"], spec.get("nodeName")
        if node in self.lost:
            return
        if metadata.get("deletionTimestamp"):
            with contextlib.suppress(NotFoundError):
                await self._client.delete(PODS, namespace, name, uid=metadata["uid"], grace_seconds=0)
            return
        if node is None:
            await self._bind(pod)
        elif pod["status"].get("phase") == "Pending":
            await self._run_pod(pod)

    async def _bind(self, pod: dict[str, Any]) -> None:
        metadata = pod["metadata"]
        avoided = set((metadata.get("annotations") or {}).get("sternpost.dev/excluded-nodes", "").split(","))
        able = [name for name in self.names if name not in self.lost and name not in avoided]
        if not able:
            return
        self._turn += 1
        target = {"apiVersion": "v1", "kind": "Node", "name": able[self._turn % len(able)]}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": metadata["name"]}, "target": target}
        with contextlib.suppress(ApiError):
            await self._client.post(PODS, metadata["namespace"], metadata["name"], "binding", binding)

    async def _run_pod(self, pod: dict[str, Any]) -> None:
        metadata = pod["metadata"]
        address = await self._address(metadata["namespace"], metadata["labels"]["sternpost.dev/job"])
        common = {"image": "i", "imageID": "", "restartCount": 0, "ready": True}
        state = {"running": {"startedAt": _rfc3339(datetime.now(UTC))}}
        status = {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "trainer", "state": state, **common}],
            "initContainerStatuses": [{"name": SIDECAR, "state": state, **common}],
        }
        with contextlib.suppress(NotFoundError):
            await self._client.merge(
                PODS, metadata["namespace"], metadata["name"], {"status": status}, subresource="status"
            )

    # --- eagle-eye ---

    async def _address(self, namespace: str, job: str) -> str:
        """Of a job's Pods: one that nobody else listens at."""
        key = f"{namespace}/{job}"
        while key not in self._addresses:
            address = "127." + ".".join(str(2 + secrets.randbelow(252)) for _ in range(3))
            app = web.Application()
            app[_JOB] = (namespace, job)
            app.add_routes([web.get("/v1/progress/stream", self._stream)])
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            try:
                await web.TCPSite(runner, address, reserved.EAGLE_EYE_PORT).start()
            except OSError:
                await runner.cleanup()
                continue
            self._servers[key] = runner
            self._addresses[key] = address
        return self._addresses[key]

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        key = request.app[_JOB]
        attempt = self._attempts.get(key)
        if attempt is None or attempt["spec"]["action"] != "run" or self.silent:
            return web.json_response({"title": "no attempt runs"}, status=404)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        told = None
        beats = 0
        while not self.silent and self._attempts.get(key, {}).get("spec", {}).get("id") == attempt["spec"]["id"]:
            report = self._report(key[0], attempt["spec"])
            state = [worker["launcher"] for worker in report["workers"]]
            if state != told or beats >= 5 / STEP_SECONDS:
                told, beats = state, 0
                await response.write(json.dumps(report).encode() + b"\n")
            beats += 1
            await asyncio.sleep(STEP_SECONDS)
        return response

    def _report(self, namespace: str, attempt: dict[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC).timestamp()
        identity = attempt["id"]
        failed = (namespace, identity) in self._failed
        workers = [
            {
                "index": worker["index"],
                "pod": worker["pod"],
                "node": worker["node"],
                "seenAt": self.lost.get(worker["node"], now),
                "attempt": identity,
                "launcher": "failed" if failed and worker["index"] == 0 else "running",
                "startedAt": self._first.get(identity, now),
                **({"firstFailure": {"rank": 0, "exitCode": 1, "at": now}} if failed and worker["index"] == 0 else {}),
            }
            for worker in attempt["workers"]
        ]
        step = self._steps.get(identity, 0)
        return {
            "attempt": identity,
            "attemptNumber": attempt["number"],
            "at": now,
            "step": step,
            "stepsPerSecond": 1 / STEP_SECONDS,
            "loss": 1.5,
            "phase": "train",
            "firstStep": 1,
            "firstStepAt": self._first.get(identity, now),
            "lastStepAt": now,
            "reportsSteps": True,
            "workers": workers,
        }


def _rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
