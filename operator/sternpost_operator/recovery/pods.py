"""Which Pods to create and which to delete."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sternpost_operator.recovery.actions import Action, CreatePod, DeletePod
from sternpost_operator.recovery.avoidance import avoided
from sternpost_operator.recovery.gang import must_go, protected
from sternpost_operator.recovery.observed import PodPhase, PodView
from sternpost_operator.recovery.view import View
from sternpost_operator.resources.attempt import AttemptWorker
from sternpost_operator.resources.training_job_status import TrainingJobStatus

FRESH_FAILURE_SECONDS = 10
"""A Pod that failed sooner after its creation is left for so long: else a node that refuses Pods would spin the loop."""


def reconcile(view: View, status: TrainingJobStatus, assigned: Iterable[AttemptWorker]) -> tuple[Action, ...]:
    """Bring the Pods to what the status says. `assigned` are workers of an attempt that is being written now."""
    run = view.run(status)
    assigned = tuple(assigned)
    # A worker of the running attempt goes only when that attempt is decided to be over: what became of it is evidence.
    current = {worker.uid for worker in run.workers} if run else set()
    leaving = [pod for pod in _sorted(view) if pod.uid not in current and _leaves(view, status, pod)]
    gone = {pod.uid for pod in leaving}
    staying = [pod for pod in _sorted(view) if pod.uid not in gone and pod.deleting_since is None]
    wanted = view.job.spec.max_workers + view.job.spec.spares
    keep = protected(view, assigned)
    surplus = [pod for pod in reversed(staying) if pod.uid not in keep][: max(0, len(staying) - wanted)]
    deletions = [*(delete(view, pod) for pod in (*leaving, *surplus)), *(delete(view, pod) for pod in _deleting(view))]
    if status.recovery is not None and status.recovery.replace_all:
        return tuple(each for each in deletions if each is not None)
    slots = {pod.slot for pod in view.observed.pods}
    missing = [slot for slot in range(wanted) if slot not in slots][: max(0, wanted - len(staying))]
    nodes = avoided(view, status)
    return (
        *(each for each in deletions if each is not None),
        *(CreatePod(slot=slot, excluded_nodes=nodes) for slot in missing),
    )


def delete_where(view: View, matches: Callable[[PodView], bool]) -> tuple[Action, ...]:
    """Delete the Pods that match; see to it that the ones that are being deleted go."""
    found = (delete(view, pod) for pod in _sorted(view) if pod.deleting_since is not None or matches(pod))
    return tuple(each for each in found if each is not None)


def delete_all(view: View) -> tuple[Action, ...]:
    """Delete every Pod."""
    return delete_where(view, lambda _: True)


def delete(view: View, pod: PodView) -> DeletePod | None:
    """Ask for the end of a Pod; by force where its node cannot confirm it. None if all is asked for already."""
    grace = view.policy.grace_seconds
    if pod.node is not None and view.node_gone(pod.node):
        # A Pod may be seen on a node before the node is.
        if pod.created_at is None or view.passed(pod.created_at, view.policy.node_lost_seconds):
            return DeletePod(pod.name, pod.uid, grace_seconds=0, force=True)
    elif (
        pod.node is not None
        and view.node_lost(pod.node)
        and (view.node_out_of_service(pod.node) or view.passed(pod.deleting_since, view.policy.force_delete_seconds))
    ):
        return DeletePod(pod.name, pod.uid, grace_seconds=0, force=True)
    return None if pod.deleting_since is not None else DeletePod(pod.name, pod.uid, grace_seconds=grace)


def _leaves(view: View, status: TrainingJobStatus, pod: PodView) -> bool:
    if pod.deleting_since is not None:
        return False
    if _is_obsolete(view, status, pod):
        return True
    if not must_go(view, status, pod):
        return False
    return not (
        pod.phase is PodPhase.FAILED
        and pod.created_at is not None
        and not view.passed(pod.created_at, FRESH_FAILURE_SECONDS)
    )


def _is_obsolete(view: View, status: TrainingJobStatus, pod: PodView) -> bool:
    """Whether the Pod still avoids a node, unscheduled, that it need not avoid any more."""
    return (
        pod.phase is PodPhase.PENDING
        and pod.node is None
        and bool(set(pod.excluded_nodes) - set(avoided(view, status)))
    )


def _deleting(view: View) -> list[PodView]:
    return [pod for pod in _sorted(view) if pod.deleting_since is not None]


def _sorted(view: View) -> list[PodView]:
    return sorted(view.observed.pods, key=lambda pod: (pod.slot, pod.name))
