"""What `plan` sees of the objects in the folder. Pure."""

from __future__ import annotations

from typing import Any

from sternpost_operator.cluster.local.environment import ADDRESS
from sternpost_operator.cluster.local.json_files import JsonObject
from sternpost_operator.cluster.local.node_record import NodeRecord
from sternpost_operator.cluster.pod_facts import (
    EAGLE_EYE_PORT,
    EXCLUDED_ANNOTATION,
    MAX_REASON,
    RING_PORT,
    at,
    condition,
    container_status,
    excluded_nodes,
    job_of,
    last_exit,
    mapping,
    parse_time,
    phase_of,
    reason_of,
    slot_of,
)
from sternpost_operator.recovery.observed import NodeView, PodPhase, PodView
from sternpost_operator.resources.training_job import TRAINER_CONTAINER

__all__ = ["EXCLUDED_ANNOTATION", "at", "belongs_to", "node_view", "pod_view", "slot_of"]


def belongs_to(manifest: JsonObject, job: str) -> bool:
    """Whether the Pod is one of the job's."""
    return job_of(manifest) == job


def pod_view(manifest: JsonObject, reported: JsonObject | None, *, node_alive: bool) -> PodView | None:
    """The projection of a Pod and of what its node's agent reported; None if it is not of a job's making.

    A Pod whose node is dead is in phase Unknown, whatever was reported before, unless it had ended.
    """
    metadata, spec = mapping(manifest.get("metadata")), mapping(manifest.get("spec"))
    slot = slot_of(manifest)
    if slot is None:
        return None
    status = mapping(mapping(reported).get("status"))
    phase = phase_of(status)
    node = spec.get("nodeName") if isinstance(spec.get("nodeName"), str) else None
    if node is not None and not node_alive and phase not in (PodPhase.SUCCEEDED, PodPhase.FAILED):
        phase = PodPhase.UNKNOWN
    trainer = container_status(status, TRAINER_CONTAINER)
    exit_code, exit_reason = last_exit(trainer)
    restarts = trainer.get("restartCount")
    ports = mapping(mapping(reported).get("ports"))
    return PodView(
        name=str(metadata.get("name")),
        uid=str(metadata.get("uid")),
        slot=slot,
        phase=phase,
        node=node,
        ready=phase is PodPhase.RUNNING and condition(status, "Ready").get("status") == "True",
        deleting_since=parse_time(metadata.get("deletionTimestamp")),
        created_at=parse_time(metadata.get("creationTimestamp")),
        address=ADDRESS if status.get("podIP") else None,
        eagle_eye_port=_port(ports.get(EAGLE_EYE_PORT)),
        ring_port=_port(ports.get(RING_PORT)),
        trainer_exit_code=exit_code,
        trainer_restarts=restarts if isinstance(restarts, int) else 0,
        excluded_nodes=excluded_nodes(metadata),
        reason=_reason(status, exit_reason, node=node, node_alive=node_alive)[:MAX_REASON],
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


def _port(value: object) -> int | None:
    return value if isinstance(value, int) and 0 < value < 65536 else None


def _reason(status: dict[str, Any], exit_reason: str, *, node: str | None, node_alive: bool) -> str:
    if node is not None and not node_alive and status.get("phase") not in ("Succeeded", "Failed"):
        return f"NodeNotAlive: node {node} does not run"
    return reason_of(status, exit_reason)
