"""A stage for the conformance suite on a Kubernetes API: `KubernetesCluster` with kopf's watches, and everybody else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

import aiohttp
import httpx
import kopf
from fake_memory import FakeMemory
from kubernetes.aio.client.configuration import Configuration

from sternpost_operator.cluster.base import Cluster
from sternpost_operator.cluster.kubernetes.client import KubernetesClient
from sternpost_operator.cluster.kubernetes.cluster import KubernetesCluster
from sternpost_operator.cluster.kubernetes.errors import NotFoundError
from sternpost_operator.cluster.kubernetes.incidents import IncidentSender
from sternpost_operator.cluster.kubernetes.inventory import Inventory, JobKey
from sternpost_operator.cluster.kubernetes.memory_spaces import MemorySpaces
from sternpost_operator.cluster.kubernetes.outbox import Outbox
from sternpost_operator.cluster.kubernetes.paths import ANOMALIES, NODES, PODS, TRAINING_JOBS, Kind
from sternpost_operator.cluster.kubernetes.progress_stream import ProgressStreams
from sternpost_operator.cluster.kubernetes.session import watching_session
from sternpost_operator.cluster.memory_client import MemoryClient
from sternpost_operator.handlers import build_registry, build_settings
from sternpost_operator.manifests.images import Images
from sternpost_operator.metrics.operator_metrics import OperatorMetrics
from sternpost_operator.node_keeper.history import NodeHistory
from sternpost_operator.operator_process.sweeper import Sweeper
from sternpost_operator.resources.anomaly import Anomaly, AnomalySpec
from sternpost_operator.resources.base import ObjectMeta

T = TypeVar("T")

SIDECAR = "sternpost-eagle-eye"


class Operator:
    """What an operator's process holds of the cluster, without the reconciles."""

    def __init__(
        self, configuration: Configuration, namespace: str, metrics: OperatorMetrics, memory_url: str = ""
    ) -> None:
        self.woken: list[JobKey] = []
        self.client = KubernetesClient(configuration, metrics)
        self.inventory = Inventory()
        self._metrics = metrics
        self._namespace = namespace
        self._web = aiohttp.ClientSession(trust_env=False)
        self._http = httpx.AsyncClient(trust_env=False)
        self.streams = ProgressStreams(self._web, self.woken.append)
        # The service is asked again at once: a test does not wait for its pauses.
        times = iter(range(10**9))
        incidents = IncidentSender(
            MemoryClient(self._http, clock=lambda: float(next(times) * 1000)),
            Outbox(self.client, namespace),
            spaces=MemorySpaces(memory_url, namespace),
            observer=metrics,
            on_taken=self.woken.append,
        )
        self.cluster = KubernetesCluster(
            self.client,
            self.inventory,
            images=Images.of_version("test"),
            namespace=namespace,
            streams=self.streams,
            incidents=incidents,
            history=NodeHistory(self._http),
            spaces=MemorySpaces(memory_url, namespace),
        )
        self.sweeper = Sweeper(self.client, self.inventory, self.woken.append)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Return when everything there is has been read."""
        registry = build_registry(
            self.inventory,
            self.woken.append,
            server=self.client.host,
            make_session=lambda: watching_session(self.client, self._metrics, self.sweeper.relisted),
        )
        self._tasks = [
            asyncio.create_task(self.cluster.incidents.run()),
            asyncio.create_task(self.sweeper.run()),
        ]
        ready = asyncio.Event()
        watches = kopf.operator(
            registry=registry,
            settings=build_settings(),
            standalone=True,
            identity="stage",  # type: ignore[arg-type]
            namespaces=[self._namespace],
            ready_flag=ready,
        )
        self._tasks.append(asyncio.create_task(watches))
        await ready.wait()

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.streams.aclose()
        await self._web.close()
        await self._http.aclose()
        await self.client.aclose()
        await asyncio.sleep(0.3)  # aiohttp's connections are closed a little after their session says so


class KubernetesStage:
    """A namespace of an API server, where this stage is the scheduler, the kubelets and the garbage collector."""

    def __init__(
        self,
        configuration: Configuration,
        namespace: str,
        metrics: Callable[[], OperatorMetrics],
        *,
        collects_garbage: bool = False,
    ) -> None:
        self.loop = asyncio.new_event_loop()
        # kopf, when it ends, cancels every task that is younger than it: the one that does the waiting must not be.
        self._work: asyncio.Queue[tuple[Coroutine[Any, Any, Any], asyncio.Future[Any]]] = asyncio.Queue()
        self._worker = self.loop.create_task(self._serve())
        self._configuration = configuration
        self._metrics = metrics
        self._namespace = namespace
        self._collects_garbage = collects_garbage
        self._nodes: set[str] = set()
        self.service = FakeMemory()
        self.wait(self.service.start())
        self.operator = self.wait(self._begin())
        self.user = self.operator.client

    @property
    def cluster(self) -> Cluster:
        return self.operator.cluster.in_namespace(self._namespace)

    async def _begin(self) -> Operator:
        operator = Operator(self._configuration, self._namespace, self._metrics(), self.service.url)
        await operator.start()
        return operator

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        done: asyncio.Future[T] = self.loop.create_future()
        self._work.put_nowait((work, done))
        return self.loop.run_until_complete(done)

    async def _serve(self) -> None:
        while True:
            work, done = await self._work.get()
            await asyncio.sleep(0.01)  # the watches get on only while something is waited for
            try:
                done.set_result(await work)
            except Exception as error:  # noqa: BLE001 -- it is the test's
                done.set_exception(error)

    def put_job(self, name: str, spec: dict[str, Any]) -> None:
        manifest = {
            "apiVersion": "sternpost.dev/v1alpha1",
            "kind": "TrainingJob",
            "metadata": {"name": name, "namespace": self._namespace},
            "spec": spec,
        }
        self.wait(self.user.apply(TRAINING_JOBS, self._namespace, manifest, manager="user"))

    def delete_job(self, name: str) -> None:
        gone = self.wait(self.user.get(TRAINING_JOBS, self._namespace, name))["metadata"]["uid"]
        self.wait(self.user.delete(TRAINING_JOBS, self._namespace, name, propagation="Background"))
        if self._collects_garbage:
            return
        for kind in (PODS, ANOMALIES, _ATTEMPTS, _SECRETS):
            for item in self.wait(self.user.list(kind, self._namespace))["items"]:
                owners = item["metadata"].get("ownerReferences") or []
                if any(owner["uid"] == gone for owner in owners):
                    self.wait(self._remove(kind, self._namespace, item["metadata"]["name"]))

    def node(self, name: str, *, ready: bool) -> None:
        self.wait(self._put_node(name, ready=ready))

    async def _put_node(self, name: str, *, ready: bool) -> None:
        if name not in self._nodes:
            self._nodes.add(name)
            labels = {"kubernetes.io/hostname": name}
            manifest = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
            await self.user.apply(NODES, None, manifest, manager="kubelet")
        now = _now()
        condition = {
            "type": "Ready",
            "status": "True" if ready else "Unknown",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        patch = {"status": {"conditions": [condition]}}
        await self.user.merge(NODES, None, name, patch, subresource="status")

    def run_pod(self, name: str, node: str) -> None:
        async def run() -> None:
            target = {"apiVersion": "v1", "kind": "Node", "name": node}
            binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
            await self.user.post(PODS, self._namespace, name, "binding", binding)
            state = {"running": {"startedAt": _now()}}
            await self._report(name, "Running", state, ready=True)

        self.wait(run())

    def finish_pod(self, name: str, exit_code: int) -> None:
        ended = {"terminated": {"exitCode": exit_code, "reason": "Error", "startedAt": _now(), "finishedAt": _now()}}
        self.wait(self._report(name, "Succeeded" if exit_code == 0 else "Failed", ended, ready=False))

    async def _report(self, name: str, phase: str, state: dict[str, Any], *, ready: bool) -> None:
        common = {"image": "i", "imageID": "", "restartCount": 0, "ready": ready}
        status = {
            "phase": phase,
            "podIP": "127.0.0.1",
            "podIPs": [{"ip": "127.0.0.1"}],
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [{"name": "trainer", "state": state, **common}],
            "initContainerStatuses": [{"name": SIDECAR, "state": state, **common}],
        }
        await self.user.merge(PODS, self._namespace, name, {"status": status}, subresource="status")

    def confirm_end(self, name: str) -> None:
        self.wait(self._remove(PODS, self._namespace, name))

    async def _remove(self, kind: Kind, namespace: str | None, name: str) -> None:
        with contextlib.suppress(NotFoundError):
            await self.user.delete(kind, namespace, name, grace_seconds=0)

    def put_anomaly(self, name: str, spec: AnomalySpec) -> None:
        manifest = Anomaly(metadata=ObjectMeta(name=name, namespace=self._namespace), spec=spec).to_wire()
        metadata = {"name": name, "namespace": self._namespace}
        self.wait(self.user.create(ANOMALIES, self._namespace, {**manifest, "metadata": metadata}))

    def memory(self, *, up: bool) -> None:
        self.service.up = up

    def remembered(self) -> list[dict[str, Any]]:
        return list(self.service.taken.values())

    def another_operator(self) -> None:
        self.wait(self.operator.aclose())
        self.operator = self.wait(self._begin())
        self.user = self.operator.client

    def close(self) -> None:
        for name in self._nodes:
            self.wait(self._remove(NODES, None, name))
        self.wait(self.operator.aclose())
        self.wait(self.service.stop())
        self._worker.cancel()
        self.loop.run_until_complete(asyncio.gather(self._worker, return_exceptions=True))
        self.loop.close()


_ATTEMPTS = Kind("sternpost.dev", "v1alpha1", "attempts", "Attempt")
_SECRETS = Kind("", "v1", "secrets", "Secret")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
