"""`LocalCluster`: this machine as a `Cluster`."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

import httpx
import structlog
from pydantic import ValidationError

from sternpost_operator.cluster.base import ConflictError
from sternpost_operator.cluster.local.attempts import read_attempt, write_attempt
from sternpost_operator.cluster.local.incidents import AcknowledgedIncidents
from sternpost_operator.cluster.local.job_token import job_token
from sternpost_operator.cluster.local.manifest_fields import grace_of
from sternpost_operator.cluster.local.node_record import NodeRecord
from sternpost_operator.cluster.local.object_store import ObjectStore
from sternpost_operator.cluster.local.paths import LocalPaths
from sternpost_operator.cluster.local.pod_objects import PodBuilder, PodObjects, read_nodes
from sternpost_operator.cluster.local.ports import PortPool
from sternpost_operator.cluster.local.progress import fetch_progress, worker_zero
from sternpost_operator.cluster.local.views import belongs_to, node_view
from sternpost_operator.cluster.memory_client import MemoryClient
from sternpost_operator.manifests.images import Images
from sternpost_operator.manifests.worker_pod import build_pod
from sternpost_operator.recovery.actions import Action, CreatePod, DeleteJob, DeletePod, RecordIncident, WriteAttempt
from sternpost_operator.recovery.observed import AnomalyView, NodeView, Observed
from sternpost_operator.resources.anomaly import Anomaly
from sternpost_operator.resources.attempt import AttemptSpec
from sternpost_operator.resources.names import ring_secret_name, secret_name
from sternpost_operator.resources.progress import ProgressReport
from sternpost_operator.resources.training_job import TrainingJob
from sternpost_operator.resources.training_job_status import TrainingJobStatus

_logger = structlog.get_logger(__name__)


class LocalCluster:
    """The folder of `paths` as a cluster, for one operator loop at a time.

    `images` are named in the Pods and used for nothing. `memory_url` is the memory service of jobs that name none: None
    while it is not known (incidents wait), empty where there is none (they count as taken). `now` gives Unix seconds.
    Close it with `aclose`.
    """

    def __init__(
        self,
        paths: LocalPaths,
        *,
        images: Images | None = None,
        memory_url: str | None = None,
        pod_builder: PodBuilder = build_pod,
        now: Callable[[], float] = time.time,
    ) -> None:
        paths.make()
        self.paths = paths
        self.store = ObjectStore(paths.objects)
        self.images = images or Images.of_version("local")
        self.memory_url = memory_url
        self._now = now
        self._ports = PortPool(paths.ports)
        self._pods = PodObjects(paths, self.store, pod_builder, now)
        self._acknowledged = AcknowledgedIncidents(paths.acknowledged)
        # Proxies of the environment are for other machines.
        self._client = httpx.AsyncClient(trust_env=False, follow_redirects=False)
        self._memory = MemoryClient(self._client)
        self._node_views: dict[str, NodeView] = {}
        self.store.sweep()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def get_job(self, name: str) -> TrainingJob | None:
        """As `Cluster.get_job`."""
        return self.store.get_job(name)

    async def observe(self, job: TrainingJob) -> Observed:
        """As `Cluster.observe`. What a cluster does by itself is done on the way: scheduling, and clearing up."""
        nodes = read_nodes(self.store)
        pods = self._pods.observe(job, nodes)
        attempt = read_attempt(self.store, job.metadata.name, job.metadata.uid)
        return Observed(
            pods=pods,
            nodes=self._observe_nodes(nodes),
            attempt=attempt,
            anomalies=self._observe_anomalies(job),
            progress=await self._progress(job, attempt),
            acknowledged_incidents=self._acknowledged.of(job.metadata.name),
        )

    async def node_history(self, job: TrainingJob, nodes: Collection[str]) -> Mapping[str, int]:  # noqa: ARG002
        """As `Cluster.node_history`. Simulated nodes have none: they are made anew for each run."""
        return {}

    async def write_status(self, job: TrainingJob, status: TrainingJobStatus) -> TrainingJob:
        """As `Cluster.write_status`; a status that did not change costs no write."""
        if status != job.status:
            return self.store.put_job(job.model_copy(update={"status": status}))
        stored = self.store.get_job(job.metadata.name)
        if stored is None or stored.metadata != job.metadata:
            raise ConflictError(f"TrainingJob {job.metadata.name} has changed since it was read")
        return job

    async def act(self, job: TrainingJob, action: Action) -> None:
        """As `Cluster.act`. Raises `ConflictError` for an attempt that is too late, `OSError`."""
        match action:
            case CreatePod():
                self._pods.create(job, action, self.images)
            case DeletePod():
                self._pods.delete(action)
            case WriteAttempt():
                write_attempt(self.store, self._ports, action.spec, namespace=job.metadata.namespace)
            case RecordIncident():
                await self._record_incident(job, action)
            case DeleteJob():
                pass  # `sternpost run` ends with its job, and its report is made from what is left of it

    def delete_job(self, name: str) -> None:
        """Remove the job and what belongs to it, as Kubernetes' garbage collector does. Its Pods end within their grace."""
        for manifest in self.store.pods():
            if belongs_to(manifest, name):
                self._pods.mark_deleted(manifest, grace_of(manifest["spec"].get("terminationGracePeriodSeconds")))
        self.store.delete_job(name)
        self.store.delete("attempts", name)
        self.store.delete("secrets", secret_name(name))
        self.store.delete("secrets", ring_secret_name(name))
        self.store.delete_anomalies(name)

    def _observe_nodes(self, nodes: Mapping[str, NodeRecord]) -> tuple[NodeView, ...]:
        now = self._now()
        self._node_views = {
            name: node_view(record, now, before=self._node_views.get(name)) for name, record in nodes.items()
        }
        return tuple(self._node_views.values())

    def _observe_anomalies(self, job: TrainingJob) -> tuple[AnomalyView, ...]:
        found = []
        for value in self.store.anomalies(job.metadata.name):
            try:
                anomaly = Anomaly.model_validate(value)
            except ValidationError as error:
                self.store.report_once("anomaly", f"{value.get('metadata')}"[:200], str(error)[:1000])
                continue
            if anomaly.spec.job == job.metadata.name:
                found.append(AnomalyView(anomaly.metadata.name, anomaly.spec))
        return tuple(found)

    async def _progress(self, job: TrainingJob, attempt: AttemptSpec | None) -> ProgressReport | None:
        worker = worker_zero(attempt)
        if worker is None:
            return None
        return await fetch_progress(self._client, worker, job_token(self.store, job.metadata.name))

    async def _record_incident(self, job: TrainingJob, action: RecordIncident) -> None:
        name, policy = job.metadata.name, job.spec.memory
        url = policy.url or self.memory_url
        if url is None:
            _logger.debug("memory service not known yet", incident=action.incident.id)
        elif not url or await self._memory.record(url, policy.space, name, action.incident):
            self._acknowledged.add(name, action.incident.id)
