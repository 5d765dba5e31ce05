"""The Pod objects of a job: created, scheduled, deleted, and cleared away where no agent can."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import structlog

from sternpost_operator.cluster.local.job_token import job_token
from sternpost_operator.cluster.local.json_files import GarbageError, JsonObject
from sternpost_operator.cluster.local.node_record import NodeRecord, parse_node
from sternpost_operator.cluster.local.object_store import ObjectStore
from sternpost_operator.cluster.local.paths import LocalPaths
from sternpost_operator.cluster.local.pod_spec import WORKING_DIR_ANNOTATION
from sternpost_operator.cluster.local.pod_status import TERMINAL, unscheduled_status
from sternpost_operator.cluster.local.processes import end_pod_processes
from sternpost_operator.cluster.local.ring_secret import make_ring_secret
from sternpost_operator.cluster.local.scheduler import Candidate, PlacedPod, place
from sternpost_operator.cluster.local.views import EXCLUDED_ANNOTATION, at, belongs_to, pod_view
from sternpost_operator.manifests.images import Images
from sternpost_operator.recovery.actions import CreatePod, DeletePod
from sternpost_operator.recovery.observed import PodView
from sternpost_operator.resources.training_job import TrainingJob

_logger = structlog.get_logger(__name__)

_KILL_PATIENCE_SECONDS = 1.0
_GARBAGE_GRACE_SECONDS = 5.0


class PodBuilder(Protocol):
    """Makes the manifest of a slot's Pod."""

    def __call__(
        self,
        job: TrainingJob,
        slot: int,
        excluded_nodes: Sequence[str],
        *,
        images: Images,
        control_plane: str,
    ) -> dict[str, Any]:
        """The Pod, without uid and node."""
        ...


def read_nodes(store: ObjectStore) -> dict[str, NodeRecord]:
    """All nodes whose records can be read."""
    found = {}
    for name, value in store.list_all("nodes").items():
        try:
            record = parse_node(value)
        except GarbageError as error:
            store.report_once("node", name, str(error))
            continue
        if record.name == name:
            found[name] = record
    return found


def is_on_live_node(manifest: JsonObject, nodes: Mapping[str, NodeRecord]) -> bool:
    """Whether the Pod is on a node whose agent runs."""
    record = nodes.get(str(manifest["spec"].get("nodeName")))
    return record is not None and record.alive


class PodObjects:
    """What the API server, the scheduler and the garbage collector are elsewhere. `now` gives Unix seconds."""

    def __init__(
        self, paths: LocalPaths, store: ObjectStore, pod_builder: PodBuilder, now: Callable[[], float]
    ) -> None:
        self._paths = paths
        self._store = store
        self._pod_builder = pod_builder
        self._now = now

    def create(self, job: TrainingJob, action: CreatePod, images: Images) -> None:
        """Create the Pod of a slot, on a node if one can take it; that it exists already is no error."""
        job_token(self._store, job.metadata.name)
        make_ring_secret(self._store, job)
        manifest = self._pod_builder(
            job, action.slot, action.excluded_nodes, images=images, control_plane=self._paths.control_plane
        )
        metadata = manifest["metadata"]
        name = metadata["name"]
        if self._store.pod(name) is not None:
            return
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = at(self._now()).isoformat()
        working_dir = job.metadata.annotations.get(WORKING_DIR_ANNOTATION)
        annotations = metadata["annotations"] = dict(metadata.get("annotations") or {})
        if working_dir is not None:
            annotations.setdefault(WORKING_DIR_ANNOTATION, working_dir)
        if action.excluded_nodes:
            annotations[EXCLUDED_ANNOTATION] = ",".join(action.excluded_nodes)
        placement = place(
            manifest, self._candidates(job.metadata.name, read_nodes(self._store)), workers=job.spec.max_workers
        )
        if placement.node is not None:
            manifest["spec"]["nodeName"] = placement.node
        if not self._store.create_pod(manifest):
            return
        _logger.info("pod created", pod=name, uid=metadata["uid"], node=placement.node)
        if placement.node is None:
            self._report_unscheduled(manifest, placement.message)

    def delete(self, action: DeletePod) -> None:
        """Delete exactly this Pod; that it is gone already is no error."""
        manifest = self._store.pod(action.name)
        if manifest is None or manifest["metadata"]["uid"] != action.uid:
            return
        if action.force:
            self._remove(manifest)
        else:
            self.mark_deleted(manifest, action.grace_seconds)

    def mark_deleted(self, manifest: JsonObject, grace_seconds: float) -> None:
        """Tell the node's agent to end the Pod; where there is none that could, remove the object."""
        metadata = manifest["metadata"]
        if not is_on_live_node(manifest, read_nodes(self._store)):
            self._remove(manifest)
            return
        known = metadata.get("deletionGracePeriodSeconds")
        if "deletionTimestamp" in metadata and isinstance(known, int | float) and known <= grace_seconds:
            return
        metadata.setdefault("deletionTimestamp", at(self._now()).isoformat())
        metadata["deletionGracePeriodSeconds"] = grace_seconds
        self._store.write_pod(manifest)

    def _remove(self, manifest: JsonObject) -> None:
        """Remove the object. What still runs of it is ended by its node's agent, or, if that is dead, here."""
        name, uid = manifest["metadata"]["name"], manifest["metadata"]["uid"]
        if not is_on_live_node(manifest, read_nodes(self._store)):
            try:
                end_pod_processes(self._paths.state_id, uid, deadline_seconds=_KILL_PATIENCE_SECONDS)
            except TimeoutError as error:
                _logger.warning("processes of a removed pod remain", pod=name, uid=uid, error=str(error))
        if self._store.remove_pod(name, uid):
            _logger.info("pod removed", pod=name, uid=uid)

    def observe(self, job: TrainingJob, nodes: Mapping[str, NodeRecord]) -> tuple[PodView, ...]:
        """The job's Pods by slot. Those that wait are scheduled, those that nobody else clears away are removed."""
        views = []
        for manifest in self._store.pods():
            if not belongs_to(manifest, job.metadata.name):
                continue
            metadata, spec = manifest["metadata"], manifest["spec"]
            if not _is_owned(manifest, job):
                # Of an earlier job of this name; Kubernetes' garbage collector would do the same.
                if "deletionTimestamp" not in metadata:
                    self.mark_deleted(manifest, _GARBAGE_GRACE_SECONDS)
                continue
            alive = is_on_live_node(manifest, nodes)
            if "deletionTimestamp" in metadata and not alive:
                self._remove(manifest)
                continue
            if not isinstance(spec.get("nodeName"), str):
                self._schedule(job, manifest, nodes)
                alive = is_on_live_node(manifest, nodes)
            view = pod_view(manifest, self._store.pod_status(metadata["name"], metadata["uid"]), node_alive=alive)
            if view is not None:
                views.append(view)
        return tuple(sorted(views, key=lambda view: view.slot))

    def _schedule(self, job: TrainingJob, manifest: JsonObject, nodes: Mapping[str, NodeRecord]) -> None:
        candidates = self._candidates(job.metadata.name, nodes)
        placement = place(manifest, candidates, workers=job.spec.max_workers)
        if placement.node is None:
            self._report_unscheduled(manifest, placement.message)
            return
        manifest["spec"]["nodeName"] = placement.node
        self._store.write_pod(manifest)
        _logger.info("pod scheduled", pod=manifest["metadata"]["name"], node=placement.node)

    def _report_unscheduled(self, manifest: JsonObject, message: str) -> None:
        name, uid = manifest["metadata"]["name"], manifest["metadata"]["uid"]
        known = self._store.pod_status(name, uid)
        if known is not None and known.get("unschedulable") == message:
            return
        status = unscheduled_status(message, since=self._now())
        self._store.write_pod_status(name, {"uid": uid, "status": status, "ports": {}, "unschedulable": message})

    def _candidates(self, job: str, nodes: Mapping[str, NodeRecord]) -> list[Candidate]:
        now = self._now()
        placed: dict[str, list[PlacedPod]] = {}
        for manifest in self._store.pods():
            metadata, node = manifest["metadata"], manifest["spec"].get("nodeName")
            status = self._store.pod_status(metadata["name"], metadata["uid"])
            if not isinstance(node, str) or (status is not None and status["status"].get("phase") in TERMINAL):
                continue
            labels = metadata.get("labels")
            pod = PlacedPod(
                labels=labels if isinstance(labels, dict) else {},
                namespace=str(metadata.get("namespace", "default")),
                same_job=belongs_to(manifest, job),
            )
            placed.setdefault(node, []).append(pod)
        return [
            Candidate(record.name, ready=record.ready(now), pods=placed.get(record.name, []))
            for record in nodes.values()
        ]


def _is_owned(manifest: JsonObject, job: TrainingJob) -> bool:
    owners = manifest["metadata"].get("ownerReferences")
    if not isinstance(owners, list) or not owners:
        return True
    return any(isinstance(owner, dict) and owner.get("uid") == job.metadata.uid for owner in owners)
