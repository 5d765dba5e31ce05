"""Which Pods can be workers, and which worker each of them is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from sternpost_operator.recovery import elastic
from sternpost_operator.recovery.avoidance import is_avoided
from sternpost_operator.recovery.observed import PodPhase, PodView
from sternpost_operator.recovery.view import View, exited_well
from sternpost_operator.resources.attempt import AttemptMember, AttemptWorker
from sternpost_operator.resources.training_job_status import TrainingJobStatus

SURVIVOR_PATIENCE_SECONDS = 10
"""How long a spare waits before it takes the index of a Pod that is there, but is not ready just now: its memory is worth it."""


@dataclass(frozen=True)
class Gang:
    """A full assignment."""

    workers: tuple[AttemptWorker, ...]
    """Sorted by index, without gaps."""
    spares: tuple[AttemptMember, ...]

    @property
    def digest(self) -> str:
        """Names this assignment: equal only for the same Pods in the same places."""
        text = "\n".join(f"{worker.index} {worker.uid}" for worker in self.workers)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def must_go(view: View, status: TrainingJobStatus, pod: PodView) -> bool:
    """Whether a Pod that is no worker of a running attempt can never be one again."""
    recovery = status.recovery
    if recovery is not None and (recovery.replace_all or pod.uid in recovery.replace):
        return True
    if pod.phase is PodPhase.FAILED or exited_well(pod):
        return True
    return is_avoided(view, status, pod) or (pod.node is not None and view.node_lost(pod.node))


def is_assignable(view: View, status: TrainingJobStatus, pod: PodView) -> bool:
    """Whether the Pod can be a worker right now."""
    return (
        pod.ready
        and pod.phase is PodPhase.RUNNING
        and pod.deleting_since is None
        and pod.address is not None
        and pod.eagle_eye_port is not None
        and pod.node is not None
        and view.node_ready(pod.node)
        and not must_go(view, status, pod)
    )


def assemble(view: View, status: TrainingJobStatus) -> Gang | None:
    """The assignment of the next attempt, or None while it cannot start. The same observation gives the same one."""
    ready = [
        pod
        for pod in sorted(view.observed.pods, key=lambda pod: (pod.slot, pod.name))
        if is_assignable(view, status, pod)
    ]
    waiting_since = status.attempt.issued_at or status.started_at

    def has_waited(seconds: float) -> bool:
        # What was decided once is only repeated: all waiting was done before.
        return bool(status.attempt.assignment) or view.passed(waiting_since, seconds)

    size = elastic.size(view, len(ready), has_waited=has_waited)
    if size is None:
        return None
    by_uid = {pod.uid: pod for pod in ready}
    places: dict[int, PodView] = {}
    for worker in view.previous_workers():
        if worker.index >= size:
            continue
        if worker.uid in by_uid:
            places[worker.index] = by_uid[worker.uid]
        elif _comes_back(view, status, worker) and not has_waited(SURVIVOR_PATIENCE_SECONDS):
            return None
    taken = {pod.uid for pod in places.values()}
    free = [pod for pod in ready if pod.uid not in taken]
    for index in range(size):
        if index not in places:
            places[index] = free.pop(0)
    return Gang(
        workers=tuple(AttemptWorker(index=index, **_member(places[index]).model_dump()) for index in range(size)),
        spares=tuple(_member(pod) for pod in free),
    )


def protected(view: View, assigned: Sequence[AttemptWorker]) -> frozenset[str]:
    """Uids of Pods that no clean-up of surplus may take: workers, of this attempt or to be kept for it."""
    kept = (worker.uid for worker in view.previous_workers())
    return frozenset([*kept, *(worker.uid for worker in assigned)])


def _comes_back(view: View, status: TrainingJobStatus, worker: AttemptWorker) -> bool:
    pod = view.pod_of(worker)
    return pod is not None and pod.deleting_since is None and not must_go(view, status, pod)


def _member(pod: PodView) -> AttemptMember:
    """Fails validation for a Pod that is not assignable."""
    return AttemptMember(
        pod=pod.name,
        uid=pod.uid,
        node=pod.node or "",
        address=pod.address or "",
        eagle_eye_port=pod.eagle_eye_port or 0,
        ring_port=pod.ring_port,
    )
