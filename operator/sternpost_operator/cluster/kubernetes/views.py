"""What is kept of the objects of the Kubernetes API. Pure: dictionaries in, entries out; garbage gives None, never an error."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from sternpost_operator.cluster.kubernetes.entries import AnomalyEntry, AttemptEntry, JobEntry, NodeEntry, PodEntry
from sternpost_operator.cluster.pod_facts import (
    EAGLE_EYE_PORT,
    MAX_REASON,
    RING_PORT,
    condition,
    container_status,
    excluded_nodes,
    job_of,
    joined,
    last_exit,
    mapping,
    mappings,
    parse_time,
    phase_of,
    reason_of,
    slot_of,
)
from sternpost_operator.manifests.sidecars import CHECKPOINT_CONTAINER, EAGLE_EYE_CONTAINER
from sternpost_operator.node_keeper.marks import read as read_marks
from sternpost_operator.recovery.observed import AnomalyView, NodeCondition, NodeTaint, NodeView, PodPhase, PodView
from sternpost_operator.resources.anomaly import Anomaly
from sternpost_operator.resources.attempt import Attempt
from sternpost_operator.resources.base import API_VERSION
from sternpost_operator.resources.training_job import TRAINER_CONTAINER

HardwareConditions = Mapping[str, str]
"""Node conditions that are evidence of bad hardware: the status that says so, by type."""

_SIGTERM_EXIT = 143
_EPOCH = datetime.fromtimestamp(0, UTC)
_METADATA = ("name", "namespace", "uid", "generation", "labels", "creationTimestamp", "deletionTimestamp")
_KEPT_ANNOTATIONS = "sternpost.dev/"


def version_of(manifest: Mapping[str, Any]) -> int:
    """The object's resource version as a number; 0 where it has none."""
    version = mapping(manifest.get("metadata")).get("resourceVersion")
    return int(version) if isinstance(version, str) and version.isascii() and version.isdecimal() else 0


def owner_of(metadata: Mapping[str, Any]) -> str:
    """Uid of the TrainingJob that owns the object, empty if none does."""
    for owner in mappings(metadata.get("ownerReferences")):
        if owner.get("kind") == "TrainingJob" and owner.get("apiVersion") == API_VERSION:
            return str(owner.get("uid") or "")
    return ""


def job_entry(manifest: Mapping[str, Any]) -> JobEntry | None:
    """A TrainingJob, without managed fields and foreign annotations."""
    metadata = mapping(manifest.get("metadata"))
    identity = _identity(metadata)
    if identity is None:
        return None
    kept = {name: metadata[name] for name in _METADATA if metadata.get(name) is not None}
    kept["resourceVersion"] = str(metadata.get("resourceVersion"))
    annotations = mapping(metadata.get("annotations"))
    kept["annotations"] = {name: value for name, value in annotations.items() if name.startswith(_KEPT_ANNOTATIONS)}
    return JobEntry(
        *identity,
        version_of(manifest),
        manifest={
            "apiVersion": manifest.get("apiVersion", API_VERSION),
            "kind": "TrainingJob",
            "metadata": kept,
            "spec": mapping(manifest.get("spec")),
            "status": mapping(manifest.get("status")),
        },
    )


def pod_entry(manifest: Mapping[str, Any]) -> PodEntry | None:
    """A Pod that bears a job's label and has a slot."""
    metadata = mapping(manifest.get("metadata"))
    identity, job, slot = _identity(metadata), job_of(manifest), slot_of(manifest)
    if identity is None or job is None or slot is None:
        return None
    spec, status = mapping(manifest.get("spec")), mapping(manifest.get("status"))
    trainer = container_status(status, TRAINER_CONTAINER)
    exit_code, exit_reason = last_exit(trainer)
    restarts, node, address = trainer.get("restartCount"), spec.get("nodeName"), status.get("podIP")
    phase = phase_of(status)
    view = PodView(
        name=str(metadata["name"]),
        uid=str(metadata["uid"]),
        slot=slot,
        phase=phase,
        node=node if isinstance(node, str) and node else None,
        ready=phase is PodPhase.RUNNING and _is_ready(spec, status, trainer),
        deleting_since=_deleting_since(metadata),
        created_at=parse_time(metadata.get("creationTimestamp")),
        address=address if isinstance(address, str) and address else None,
        eagle_eye_port=_port(spec, EAGLE_EYE_PORT),
        ring_port=_port(spec, RING_PORT),
        trainer_exit_code=_signal(exit_code),
        trainer_restarts=restarts if isinstance(restarts, int) else 0,
        reason=reason_of(status, exit_reason)[:MAX_REASON],
        excluded_nodes=excluded_nodes(metadata),
        disruption=_disruption(status)[:MAX_REASON],
    )
    return PodEntry(*identity, version_of(manifest), job=job, owner=owner_of(metadata), view=view)


def attempt_entry(manifest: Mapping[str, Any]) -> AttemptEntry | None:
    """An Attempt; one that cannot be understood has no spec."""
    metadata = mapping(manifest.get("metadata"))
    identity = _identity(metadata)
    if identity is None:
        return None
    try:
        spec = Attempt.model_validate({"metadata": {"name": metadata["name"]}, "spec": manifest.get("spec")}).spec
    except ValidationError:
        spec = None
    return AttemptEntry(*identity, version_of(manifest), owner=owner_of(metadata), spec=spec)


def anomaly_entry(manifest: Mapping[str, Any]) -> AnomalyEntry | None:
    """An Anomaly, or None for one that cannot be understood."""
    metadata = mapping(manifest.get("metadata"))
    identity = _identity(metadata)
    if identity is None:
        return None
    try:
        spec = Anomaly.model_validate({"metadata": {"name": "any"}, "spec": manifest.get("spec")}).spec
    except ValidationError:
        return None
    return AnomalyEntry(*identity, version_of(manifest), view=AnomalyView(str(metadata["name"]), spec))


def node_entry(manifest: Mapping[str, Any], hardware: HardwareConditions) -> NodeEntry | None:
    """A node; of its conditions, beside Ready, only those that tell of bad hardware."""
    metadata = mapping(manifest.get("metadata"))
    identity = _identity(metadata)
    if identity is None:
        return None
    spec, status = mapping(manifest.get("spec")), mapping(manifest.get("status"))
    ready = condition(status, "Ready")
    view = NodeView(
        name=str(metadata["name"]),
        ready=ready.get("status") == "True",
        ready_since=parse_time(ready.get("lastTransitionTime"))
        or parse_time(metadata.get("creationTimestamp"))
        or _EPOCH,
        last_heartbeat=parse_time(ready.get("lastHeartbeatTime")),
        unschedulable=spec.get("unschedulable") is True,
        conditions=tuple(
            _condition(item)
            for item in mappings(status.get("conditions"))
            if str(item.get("type")) in hardware and item.get("status") == hardware[str(item.get("type"))]
        ),
        taints=tuple(_taint(item) for item in mappings(spec.get("taints"))),
    )
    marks = read_marks(mapping(metadata.get("annotations")))
    return NodeEntry(*identity, version_of(manifest), view=view, marks=marks)


def _identity(metadata: Mapping[str, Any]) -> tuple[str, str, str] | None:
    name, uid = metadata.get("name"), metadata.get("uid")
    if not isinstance(name, str) or not isinstance(uid, str) or not name or not uid:
        return None
    return str(metadata.get("namespace") or ""), name, uid


def _is_ready(spec: Mapping[str, Any], status: dict[str, Any], trainer: Mapping[str, Any]) -> bool:
    """Whether the launcher runs and the sidecars answer.

    Not the Pod's own condition: a readiness probe of the template may wait for the very training that is to begin.
    """
    if "running" not in mapping(trainer.get("state")):
        return False
    names = {item.get("name") for item in mappings(spec.get("initContainers"))}
    sidecars = [name for name in (EAGLE_EYE_CONTAINER, CHECKPOINT_CONTAINER) if name in names]
    return bool(sidecars) and all(
        container_status(status, name, "initContainerStatuses").get("ready") is True for name in sidecars
    )


def _deleting_since(metadata: Mapping[str, Any]) -> datetime | None:
    """When the deletion was asked for; `deletionTimestamp` is when the grace period ends."""
    until = parse_time(metadata.get("deletionTimestamp"))
    grace = metadata.get("deletionGracePeriodSeconds")
    if until is None or not isinstance(grace, int) or grace <= 0:
        return until
    return datetime.fromtimestamp(until.timestamp() - grace, UTC)


def _port(spec: Mapping[str, Any], name: str) -> int | None:
    for container in mappings(spec.get("initContainers")):
        for port in mappings(container.get("ports")):
            number = port.get("containerPort")
            if port.get("name") == name and isinstance(number, int) and 0 < number < 65536:
                return number
    return None


def _signal(code: int | None) -> int | None:
    """The runtime reports 128 + N for signal N. The launcher itself exits with 143 when it is told to end."""
    return 128 - code if code is not None and 128 < code < 128 + 65 and code != _SIGTERM_EXIT else code


def _disruption(status: dict[str, Any]) -> str:
    found = condition(status, "DisruptionTarget")
    return joined(found.get("reason") or "Disruption", found.get("message")) if found.get("status") == "True" else ""


def _condition(item: Mapping[str, Any]) -> NodeCondition:
    return NodeCondition(
        type=str(item.get("type")),
        status=str(item.get("status")),
        reason=str(item.get("reason") or ""),
        message=str(item.get("message") or "")[:MAX_REASON],
        since=parse_time(item.get("lastTransitionTime")),
    )


def _taint(item: Mapping[str, Any]) -> NodeTaint:
    return NodeTaint(
        key=str(item.get("key") or ""),
        effect=str(item.get("effect") or ""),
        value=str(item.get("value") or ""),
        since=parse_time(item.get("timeAdded")),
    )
