"""`KubernetesCluster`: what all jobs share. `in_namespace` gives the `Cluster` that a reconcile works on."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence

import structlog

from sternpost_operator.cluster.base import ConflictError, InvalidJobError, RefusedError
from sternpost_operator.cluster.kubernetes.acceptance import accept
from sternpost_operator.cluster.kubernetes.attempts import Attempts
from sternpost_operator.cluster.kubernetes.client import KubernetesClient
from sternpost_operator.cluster.kubernetes.entries import JobEntry
from sternpost_operator.cluster.kubernetes.errors import ApiError, NotFoundError, VersionConflictError
from sternpost_operator.cluster.kubernetes.heartbeats import Heartbeats
from sternpost_operator.cluster.kubernetes.incidents import IncidentSender
from sternpost_operator.cluster.kubernetes.inventory import Inventory, JobKey
from sternpost_operator.cluster.kubernetes.memory_spaces import MemorySpaces
from sternpost_operator.cluster.kubernetes.owned import OwnedObjects
from sternpost_operator.cluster.kubernetes.paths import TRAINING_JOBS
from sternpost_operator.cluster.kubernetes.pods import PodBuilder, Pods
from sternpost_operator.cluster.kubernetes.progress_stream import ProgressStreams, source_of
from sternpost_operator.manifests.images import Images
from sternpost_operator.manifests.worker_pod import build_pod
from sternpost_operator.node_keeper.history import NodeHistory
from sternpost_operator.recovery.actions import (
    Action,
    CreatePod,
    DeleteJob,
    DeletePod,
    RecordIncident,
    WriteAttempt,
)
from sternpost_operator.recovery.observed import Observed
from sternpost_operator.resources.attempt import AttemptAction, AttemptSpec
from sternpost_operator.resources.training_job import TrainingJob
from sternpost_operator.resources.training_job_status import TrainingJobStatus

_logger = structlog.get_logger(__name__)


class KubernetesCluster:
    """The API server behind `client`, seen through `inventory`, which watches fill."""

    def __init__(
        self,
        client: KubernetesClient,
        inventory: Inventory,
        *,
        images: Images,
        namespace: str,
        metrics_namespaces: Sequence[str] = (),
        streams: ProgressStreams,
        incidents: IncidentSender,
        history: NodeHistory,
        spaces: MemorySpaces,
        pod_builder: PodBuilder = build_pod,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.inventory = inventory
        self.streams = streams
        self.incidents = incidents
        self.drains: Mapping[str, str] = {}
        """Why a node's drain does not get on, as the node keeper says."""
        self.client = client
        self.owned = OwnedObjects(client, namespace, metrics_namespaces)
        self.pods = Pods(client, inventory, images, pod_builder, clock)
        self.attempts = Attempts(client, inventory)
        self.heartbeats = Heartbeats(client)
        self.history = history
        self.spaces = spaces
        self._accepted: dict[JobKey, tuple[int, TrainingJob]] = {}

    def in_namespace(self, namespace: str) -> NamespaceCluster:
        """The jobs of a namespace."""
        return NamespaceCluster(self, namespace)

    def read(self, entry: JobEntry) -> TrainingJob:
        """The job of an entry, understood once for each version; raises `InvalidJobError`."""
        known = self._accepted.get(entry.key)
        if known is not None and known[0] == entry.version and known[1].metadata.uid == entry.uid:
            return known[1]
        job = accept(entry.manifest)
        problems = self.spaces.problems(job)
        if problems:
            raise InvalidJobError(problems)
        self._accepted[entry.key] = (entry.version, job)
        return job

    def forget(self, key: JobKey, uid: str) -> None:
        """The job is gone."""
        self.streams.follow(key, None, _no_token)
        self._accepted.pop(key, None)
        self.owned.forget(uid)
        self.pods.forget(uid)


class NamespaceCluster:
    """A `Cluster`: nothing that it observes costs a request."""

    def __init__(self, shared: KubernetesCluster, namespace: str) -> None:
        self._shared = shared
        self._namespace = namespace

    async def get_job(self, name: str) -> TrainingJob | None:
        """As `Cluster.get_job`."""
        entry = self._shared.inventory.jobs.get(self._namespace, name)
        return None if entry is None else self._shared.read(entry)

    async def observe(self, job: TrainingJob) -> Observed:
        """As `Cluster.observe`."""
        shared, key = self._shared, (self._namespace, job.metadata.name)
        attempt = shared.attempts.read(job)
        running = attempt is not None and attempt.action is AttemptAction.RUN and not job.status.phase.terminal
        shared.streams.follow(key, source_of(attempt) if running else None, lambda: shared.owned.token(job))
        pods = tuple(
            sorted(
                (entry.view for entry in shared.inventory.pods.of(key) if entry.owner == job.metadata.uid),
                key=lambda view: view.slot,
            )
        )
        return Observed(
            pods=pods,
            nodes=await shared.heartbeats.complete(shared.inventory.node_views(), _nodes_of(attempt)),
            attempt=attempt,
            anomalies=tuple(entry.view for entry in shared.inventory.anomalies.of(key)),
            progress=shared.streams.newest(key),
            last_progress=shared.streams.last(key),
            acknowledged_incidents=shared.incidents.taken(job.metadata.uid),
            drains=shared.drains,
        )

    async def node_history(self, job: TrainingJob, nodes: Collection[str]) -> Mapping[str, int]:
        """As `Cluster.node_history`, over the jobs of all tenants."""
        spaces = self._shared.spaces
        return await self._shared.history.of(spaces.url, spaces.platform or spaces.space(job), nodes)

    async def write_status(self, job: TrainingJob, status: TrainingJobStatus) -> TrainingJob:
        """As `Cluster.write_status`. The job of the answer is in the inventory before this returns."""
        entry = self._shared.inventory.jobs.get(self._namespace, job.metadata.name)
        if entry is None or entry.uid != job.metadata.uid or str(entry.version) != job.metadata.resource_version:
            raise ConflictError(f"TrainingJob {job.metadata.name} has changed since it was read")
        manifest = {**entry.manifest, "status": status.to_wire()}
        try:
            stored = await self._shared.client.replace(
                TRAINING_JOBS, self._namespace, job.metadata.name, manifest, subresource="status"
            )
        except (VersionConflictError, NotFoundError) as error:
            await self._look_again(job.metadata.name, entry.uid)
            raise ConflictError(str(error)) from error
        except RefusedError as error:
            raise ApiError(422, f"the status is refused: {error}") from error
        self._shared.inventory.see(TRAINING_JOBS, stored)
        updated = self._shared.inventory.jobs.get(self._namespace, job.metadata.name)
        if updated is None:
            raise ConflictError(f"TrainingJob {job.metadata.name} was deleted")
        written = self._shared.read(updated)
        self._shared.incidents.settle(written)
        return written

    async def act(self, job: TrainingJob, action: Action) -> None:
        """As `Cluster.act`. Raises `ConflictError` for an attempt that is too late."""
        shared = self._shared
        match action:
            case CreatePod():
                await shared.owned.ensure(job)
                await shared.pods.create(job, action)
            case DeletePod():
                await shared.pods.delete(self._namespace, action)
            case WriteAttempt():
                await shared.attempts.write(job, action.spec)
            case RecordIncident():
                shared.incidents.offer(job, action.incident)
            case DeleteJob():
                await self._delete(job)

    async def _delete(self, job: TrainingJob) -> None:
        try:
            await self._shared.client.delete(
                TRAINING_JOBS,
                self._namespace,
                job.metadata.name,
                uid=job.metadata.uid,
                propagation="Background",
            )
        except (NotFoundError, VersionConflictError):
            return

    async def _look_again(self, name: str, uid: str) -> None:
        """A conflict means that the watch is behind: do not wait for it."""
        try:
            found = await self._shared.client.get(TRAINING_JOBS, self._namespace, name)
        except NotFoundError:
            self._shared.inventory.lose(TRAINING_JOBS, self._namespace, name, uid)
            return
        self._shared.inventory.see(TRAINING_JOBS, found)


def _nodes_of(attempt: AttemptSpec | None) -> frozenset[str]:
    return frozenset(worker.node for worker in attempt.workers) if attempt is not None else frozenset()


async def _no_token() -> str:
    raise ValueError("nothing is followed")
