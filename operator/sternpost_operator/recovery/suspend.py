"""Suspension: every launcher is told to flush and exit, then the Pods go. It costs no budget."""

from __future__ import annotations

from sternpost_operator.recovery import attempts, incidents, pods, tracking
from sternpost_operator.recovery.actions import Action
from sternpost_operator.recovery.observed import PodPhase
from sternpost_operator.recovery.view import View
from sternpost_operator.resources.training_job_status import Cause, Phase, Recovery, TrainingJobStatus

FLUSH_SECONDS = 5
"""Beyond the grace period, before the Pods are deleted: time to commit the newest checkpoint."""


def applies(view: View, status: TrainingJobStatus) -> bool:
    """Whether the job is, or shall be, suspended. A suspension that began is completed before the job resumes."""
    return view.job.spec.suspend or _is_stopping(status) or status.phase is Phase.SUSPENDED


def is_over(view: View, status: TrainingJobStatus) -> bool:
    """Whether the job is to go on, and nothing is left of what was stopped."""
    if view.job.spec.suspend:
        return False
    return status.phase is Phase.SUSPENDED or (_is_stopping(status) and not view.observed.pods)


def resume(view: View, status: TrainingJobStatus) -> TrainingJobStatus:
    """Go on under a new number: whoever has seen the one of the stop has exited, or will."""
    status = status.model_copy(update={"phase": Phase.PENDING, "recovery": None})
    return attempts.next_attempt(view, status) if status.attempt.number else status


def step(view: View, status: TrainingJobStatus) -> tuple[TrainingJobStatus, tuple[Action, ...]]:
    """Bring the suspension one step on."""
    is_empty = not view.observed.pods
    if status.phase is Phase.SUSPENDED:
        return status, pods.delete_all(view)
    if not _is_stopping(status):
        if status.attempt.number == 0:
            # Nothing has ever run: there is nobody to tell.
            status = _suspended(status) if is_empty else status
            return status, pods.delete_all(view)
        status = _stop(view, status)
    if is_empty:
        return _suspended(status), ()
    issued = attempts.issue_stop(view, status)
    status = issued.status
    writes: tuple[Action, ...] = (issued.write,) if issued.write else ()
    decided_at = status.recovery.decided_at if status.recovery else None
    if view.passed(decided_at, view.policy.grace_seconds + FLUSH_SECONDS):
        return status, (*writes, *pods.delete_all(view))
    done = pods.delete_where(view, lambda pod: pod.phase is not PodPhase.RUNNING)
    return status, (*writes, *done)


def _is_stopping(status: TrainingJobStatus) -> bool:
    return status.recovery is not None and status.recovery.cause is Cause.SUSPENDED


def _stop(view: View, status: TrainingJobStatus) -> TrainingJobStatus:
    ended = status.attempt.id
    status = tracking.refresh(view, status)
    status = attempts.end_attempt(
        view,
        status,
        cause=Cause.SUSPENDED,
        rung=None,
        node=None,
        worker=None,
        message="suspended on request",
        detected_at=view.now,
        healthy_at=None,
    )
    status = attempts.next_attempt(view, status)
    status = incidents.suspended(view, status, ended)
    recovery = Recovery(
        detected_at=view.now, decided_at=view.now, cause=Cause.SUSPENDED, message="suspended on request"
    )
    return status.model_copy(update={"recovery": recovery})


def _suspended(status: TrainingJobStatus) -> TrainingJobStatus:
    return status.model_copy(update={"phase": Phase.SUSPENDED, "recovery": None})
