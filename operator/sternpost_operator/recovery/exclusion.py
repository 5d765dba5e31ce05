"""Which nodes the job stays away from, which it only suspects, and for how long."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from sternpost_operator.recovery.view import View
from sternpost_operator.resources.training_job_status import (
    MAX_NODES,
    ExcludedNode,
    SuspectedNode,
    TrainingJobStatus,
)


def excluded(status: TrainingJobStatus) -> tuple[str, ...]:
    """Names of the excluded nodes, sorted."""
    return tuple(sorted(each.node for each in status.excluded_nodes))


def is_excluded(status: TrainingJobStatus, node: str | None) -> bool:
    """Whether no worker may be on this node."""
    return any(each.node == node for each in status.excluded_nodes)


def is_suspected(status: TrainingJobStatus, node: str) -> bool:
    """Whether the node was blamed before and stayed."""
    return any(each.node == node for each in status.suspected_nodes)


def expire(status: TrainingJobStatus, now: datetime, exclude_seconds: float) -> TrainingJobStatus:
    """Forget exclusions that have run out, and suspicions as old as an exclusion may get."""
    kept = [each for each in status.excluded_nodes if each.until > now]
    suspected = [each for each in status.suspected_nodes if each.last_at + timedelta(seconds=exclude_seconds) > now]
    if len(kept) == len(status.excluded_nodes) and len(suspected) == len(status.suspected_nodes):
        return status
    return status.model_copy(update={"excluded_nodes": kept, "suspected_nodes": suspected})


def exclude(status: TrainingJobStatus, reasons: Mapping[str, str], view: View) -> TrainingJobStatus:
    """Exclude each node of `reasons` from now on; the ones that end first make room if there are too many."""
    if not reasons:
        return status
    until = view.now + timedelta(seconds=view.policy.exclude_seconds)
    new = [
        ExcludedNode(node=node, since=view.now, until=until, reason=reason, attempt=status.attempt.number)
        for node, reason in sorted(reasons.items())
    ]
    others = sorted((each for each in status.excluded_nodes if each.node not in reasons), key=lambda each: each.until)
    return status.model_copy(
        update={
            "excluded_nodes": [*others, *new][-MAX_NODES:],
            "suspected_nodes": [each for each in status.suspected_nodes if each.node not in reasons],
        }
    )


def suspect(status: TrainingJobStatus, reasons: Mapping[str, str], now: datetime) -> TrainingJobStatus:
    """Remember that each node of `reasons` was blamed."""
    if not reasons:
        return status
    counts = {each.node: each.count for each in status.suspected_nodes}
    others = sorted(
        (each for each in status.suspected_nodes if each.node not in reasons), key=lambda each: each.last_at
    )
    new = [
        SuspectedNode(node=node, count=counts.get(node, 0) + 1, last_at=now, reason=reason)
        for node, reason in sorted(reasons.items())
    ]
    return status.model_copy(update={"suspected_nodes": [*others, *new][-MAX_NODES:]})


def breaks_circuit(blamed: Collection[str], nodes: Collection[str]) -> bool:
    """Whether so many nodes are blamed at once that the job, or the network, is at fault and not they.

    One node alone is always believed, also if it is the only one.
    """
    return len(set(blamed)) > 1 and 2 * len(set(blamed)) > len(set(nodes))


def lost_while_held(view: View, status: TrainingJobStatus) -> dict[str, str]:
    """Nodes that were lost under a worker while the next attempt was being prepared: reasons by node."""
    if view.run(status) is not None or not status.attempt.number:
        return {}
    workers = view.previous_workers()
    found = {
        worker.node: f"lost while attempt {status.attempt.id} was being prepared"
        for worker in workers
        if view.node_lost(worker.node)
        and not is_excluded(status, worker.node)
        and (pod := view.pod_of(worker)) is not None
        and pod.deleting_since is None
    }
    return {} if breaks_circuit(found, [worker.node for worker in workers]) else found
