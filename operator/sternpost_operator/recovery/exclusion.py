"""Which nodes the job stays away from, which it only suspects, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from sternpost_operator.recovery.circuit import breaks_circuit
from sternpost_operator.recovery.view import View
from sternpost_operator.resources.training_job_status import (
    MAX_NODES,
    ExcludedNode,
    SuspectedNode,
    TrainingJobStatus,
)

_MAX_DOUBLINGS = 32


def excluded(status: TrainingJobStatus) -> tuple[str, ...]:
    """Names of the excluded nodes, sorted."""
    return tuple(sorted(each.node for each in status.excluded_nodes))


def is_excluded(status: TrainingJobStatus, node: str | None) -> bool:
    """Whether no worker may be on this node."""
    return any(each.node == node for each in status.excluded_nodes)


def is_suspected(status: TrainingJobStatus, node: str) -> bool:
    """Whether the node was blamed before and stayed."""
    return any(each.node == node for each in status.suspected_nodes)


def seconds(view: View, status: TrainingJobStatus, node: str) -> float:
    """How long an exclusion of the node lasts: twice as long each further time, but never beyond `maxExcludeSeconds`."""
    policy = view.policy
    longest = max(policy.exclude_seconds, policy.max_exclude_seconds)
    return float(min(policy.exclude_seconds * 2 ** min(earlier(view, status, node), _MAX_DOUBLINGS), longest))


def earlier(view: View, status: TrainingJobStatus, node: str) -> int:
    """How often the node was excluded before, as far as is known: by this job, or as the memory service tells."""
    standing = next((each.count for each in status.excluded_nodes if each.node == node), 0)
    return max(standing, view.observed.node_history.get(node, 0))


def expire(view: View, status: TrainingJobStatus) -> TrainingJobStatus:
    """Forget exclusions that have run out, and suspicions as old as an exclusion may get."""
    kept = [each for each in status.excluded_nodes if each.until > view.now]
    suspected = [each for each in status.suspected_nodes if _suspected_until(view, each) > view.now]
    if len(kept) == len(status.excluded_nodes) and len(suspected) == len(status.suspected_nodes):
        return status
    return status.model_copy(update={"excluded_nodes": kept, "suspected_nodes": suspected})


def exclude(status: TrainingJobStatus, reasons: Mapping[str, str], view: View) -> TrainingJobStatus:
    """Exclude each node of `reasons` from now on; the ones that end first make room if there are too many."""
    if not reasons:
        return status
    new = [
        ExcludedNode(
            node=node,
            since=view.now,
            until=view.now + timedelta(seconds=seconds(view, status, node)),
            reason=reason,
            attempt=status.attempt.number,
            proven=node in view.bad_nodes,
            count=earlier(view, status, node) + 1,
        )
        for node, reason in sorted(reasons.items())
    ]
    others = sorted((each for each in status.excluded_nodes if each.node not in reasons), key=lambda each: each.until)
    return status.model_copy(
        update={
            "excluded_nodes": [*others, *new][-MAX_NODES:],
            "suspected_nodes": [each for each in status.suspected_nodes if each.node not in reasons],
        }
    )


def suspect(view: View, status: TrainingJobStatus, reasons: Mapping[str, str]) -> TrainingJobStatus:
    """Remember that each node of `reasons` was blamed, for as long as it would have been excluded."""
    if not reasons:
        return status
    counts = {each.node: each.count for each in status.suspected_nodes}
    others = sorted(
        (each for each in status.suspected_nodes if each.node not in reasons), key=lambda each: each.last_at
    )
    new = [
        SuspectedNode(
            node=node,
            count=counts.get(node, 0) + 1,
            last_at=view.now,
            until=view.now + timedelta(seconds=seconds(view, status, node)),
            reason=reason,
        )
        for node, reason in sorted(reasons.items())
    ]
    return status.model_copy(update={"suspected_nodes": [*others, *new][-MAX_NODES:]})


def newly_blamed(before: TrainingJobStatus, after: TrainingJobStatus) -> frozenset[str]:
    """Nodes that a plan excludes or suspects anew: for how long depends on their history, if it can be had."""
    known = {(each.node, each.since) for each in before.excluded_nodes}
    known |= {(each.node, each.last_at) for each in before.suspected_nodes}
    new = {(each.node, each.since) for each in after.excluded_nodes}
    new |= {(each.node, each.last_at) for each in after.suspected_nodes}
    return frozenset(node for node, _ in new - known)


def proven(status: TrainingJobStatus) -> tuple[str, ...]:
    """Names of the nodes that are excluded on their own evidence, sorted."""
    return tuple(sorted(each.node for each in status.excluded_nodes if each.proven))


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


def _suspected_until(view: View, suspected: SuspectedNode) -> datetime:
    # Who was suspected by an earlier release has no end of its own.
    return suspected.until or suspected.last_at + timedelta(seconds=view.policy.exclude_seconds)
