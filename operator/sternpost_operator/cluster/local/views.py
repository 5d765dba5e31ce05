"""What `plan` sees of the objects in the folder. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sternpost_operator.cluster.local.environment import ADDRESS
from sternpost_operator.cluster.local.json_files import JsonObject
from sternpost_operator.cluster.local.node_record import NodeRecord
from sternpost_operator.manifests.owned import JOB_LABEL, SLOT_LABEL
from sternpost_operator.recovery.observed import NodeView, PodPhase, PodView
from sternpost_operator.resources.training_job import TRAINER_CONTAINER

EXCLUDED_ANNOTATION = "sternpost.dev/excluded-nodes"
"""On a Pod: names of the nodes that it was created to avoid, apart from what its template says itself."""

EAGLE_EYE_PORT = "eagle-eye"
_MAX_REASON = 1024


def parse_time(value: object) -> datetime | None:
    """An RFC 3339 time, or None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def at(seconds: float) -> datetime:
    """Unix seconds as an instant."""
    return datetime.fromtimestamp(seconds, UTC)


def belongs_to(manifest: JsonObject, job: str) -> bool:
    """Whether the Pod is one of the job's."""
    return _mapping(_mapping(manifest.get("metadata")).get("labels")).get(JOB_LABEL) == job


def slot_of(manifest: JsonObject) -> int | None:
    """The Pod's slot, or None if it has none."""
    metadata = _mapping(manifest.get("metadata"))
    slot = _mapping(metadata.get("labels")).get(SLOT_LABEL, str(metadata.get("name")).rpartition("-")[2])
    return int(slot) if str(slot).isdecimal() and len(str(slot)) < 9 else None


def pod_view(manifest: JsonObject, reported: JsonObject | None, *, node_alive: bool) -> PodView | None:
    """The projection of a Pod and of what its node's agent reported; None if it is not of a job's making.

    A Pod whose node is dead is in phase Unknown, whatever was reported before, unless it had ended.
    """
    metadata, spec = _mapping(manifest.get("metadata")), _mapping(manifest.get("spec"))
    slot = slot_of(manifest)
    if slot is None:
        return None
    status = _mapping(_mapping(reported).get("status"))
    phase = _phase(status.get("phase"))
    node = spec.get("nodeName") if isinstance(spec.get("nodeName"), str) else None
    if node is not None and not node_alive and phase not in (PodPhase.SUCCEEDED, PodPhase.FAILED):
        phase = PodPhase.UNKNOWN
    trainer = _container(status, TRAINER_CONTAINER)
    exit_code, exit_reason = _last_exit(trainer)
    restarts = trainer.get("restartCount")
    port = _mapping(_mapping(reported).get("ports")).get(EAGLE_EYE_PORT)
    return PodView(
        name=str(metadata.get("name")),
        uid=str(metadata.get("uid")),
        slot=slot,
        phase=phase,
        node=node,
        ready=phase is PodPhase.RUNNING and _condition(status, "Ready").get("status") == "True",
        deleting_since=parse_time(metadata.get("deletionTimestamp")),
        created_at=parse_time(metadata.get("creationTimestamp")),
        address=ADDRESS if status.get("podIP") else None,
        eagle_eye_port=port if isinstance(port, int) and 0 < port < 65536 else None,
        trainer_exit_code=exit_code,
        trainer_restarts=restarts if isinstance(restarts, int) else 0,
        excluded_nodes=_excluded(metadata),
        reason=_reason(status, exit_reason, node=node, node_alive=node_alive)[:_MAX_REASON],
    )


def node_view(record: NodeRecord, now: float, *, before: NodeView | None) -> NodeView:
    """The projection of a node at `now` in Unix seconds; `before` is the last one, for the time of a change."""
    ready = record.ready(now)
    if before is not None and before.ready == ready and (not ready or before.ready_since >= at(record.started_at)):
        since = before.ready_since
    elif not ready:
        since = at(record.heartbeat_at)
    elif before is None or before.ready_since < at(record.started_at):
        since = at(record.started_at)
    else:
        since = at(now)
    return NodeView(record.name, ready, since, at(record.heartbeat_at))


def _excluded(metadata: dict[str, Any]) -> tuple[str, ...]:
    names = _mapping(metadata.get("annotations")).get(EXCLUDED_ANNOTATION)
    return tuple(names.split(",")) if isinstance(names, str) and names else ()


def _phase(value: object) -> PodPhase:
    try:
        return PodPhase(str(value))
    except ValueError:
        return PodPhase.PENDING


def _container(status: dict[str, Any], name: str) -> dict[str, Any]:
    return next((item for item in _mappings(status.get("containerStatuses")) if item.get("name") == name), {})


def _condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    return next((item for item in _mappings(status.get("conditions")) if item.get("type") == kind), {})


def _last_exit(container: dict[str, Any]) -> tuple[int | None, str]:
    """Exit code, -N for signal N, and the reason, of the run that ended last."""
    state, last = _mapping(container.get("state")), _mapping(container.get("lastState"))
    ended = _mapping(state.get("terminated")) or _mapping(last.get("terminated"))
    signal, code = ended.get("signal"), ended.get("exitCode")
    reason = str(ended.get("reason", "")) if ended and code != 0 else ""
    if isinstance(signal, int) and signal > 0:
        return -signal, reason
    return (code if isinstance(code, int) else None), reason


def _reason(status: dict[str, Any], exit_reason: str, *, node: str | None, node_alive: bool) -> str:
    if node is not None and not node_alive and status.get("phase") not in ("Succeeded", "Failed"):
        return f"NodeNotAlive: node {node} does not run"
    if status.get("reason"):
        return _joined(status.get("reason"), status.get("message"))
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") == "False":
        return _joined(scheduled.get("reason"), scheduled.get("message"))
    for container in _mappings(status.get("initContainerStatuses")) + _mappings(status.get("containerStatuses")):
        waiting = _mapping(_mapping(container.get("state")).get("waiting"))
        if waiting.get("message"):
            return _joined(waiting.get("reason"), f"container {container.get('name')}: {waiting['message']}")
    return exit_reason


def _joined(reason: object, message: object) -> str:
    return f"{reason}: {message}" if message else str(reason)


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _mappings(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
