"""Numbers of attempts: when one ends, when the next is issued, and as what."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sternpost_operator.recovery import gang, goodput
from sternpost_operator.recovery.actions import WriteAttempt
from sternpost_operator.recovery.view import View
from sternpost_operator.resources.attempt import AttemptAction, AttemptSpec, AttemptWorker, attempt_id
from sternpost_operator.resources.training_job_status import (
    MAX_ATTEMPTS,
    AttemptRecord,
    Cause,
    CurrentAttempt,
    Rung,
    Stages,
    TrainingJobStatus,
)


@dataclass(frozen=True)
class Issue:
    """What the Attempt object must become, if anything."""

    status: TrainingJobStatus
    write: WriteAttempt | None = None

    @property
    def assigned(self) -> tuple[AttemptWorker, ...]:
        """The workers that were just assigned."""
        return tuple(self.write.spec.workers) if self.write else ()


def next_attempt(view: View, status: TrainingJobStatus) -> TrainingJobStatus:
    """A new number, higher than any that was ever written: from here on every older id is refused."""
    seen = view.attempt.number if view.attempt else 0
    number = max(status.attempt.number, seen) + 1
    attempt = CurrentAttempt(number=number, id=attempt_id(view.job.metadata.uid, number), issued_at=view.now)
    return goodput.settle(status).model_copy(update={"attempt": attempt})


def end_attempt(
    view: View,
    status: TrainingJobStatus,
    *,
    cause: Cause,
    rung: Rung | None,
    node: str | None,
    worker: int | None,
    message: str,
    detected_at: datetime,
    healthy_at: datetime | None,
) -> TrainingJobStatus:
    """Write the current attempt's record. Call it with what was reported last still in the status."""
    attempt = status.attempt
    detect = None if healthy_at is None else round(max(0.0, (detected_at - healthy_at).total_seconds()), 3)
    last_step = attempt.last_step if attempt.last_step is not None else attempt.restored_step
    record = AttemptRecord(
        number=attempt.number,
        id=attempt.id,
        cause=cause,
        rung=rung,
        node=node,
        worker=worker,
        message=message,
        detected_at=detected_at,
        decided_at=view.now,
        stages=Stages(detect=detect, decide=round((view.now - detected_at).total_seconds(), 3)),
        last_step=last_step,
        first_step=attempt.first_step,
        step_seconds=goodput.step_seconds(attempt),
    )
    return status.model_copy(update={"attempts": [*status.attempts, record][-MAX_ATTEMPTS:]})


def issue_run(view: View, status: TrainingJobStatus) -> Issue:
    """Bring the Attempt object to the current number: `run` if the gang is complete, else `hold`.

    Whatever was lost between the status and the object is written again, and one id never means two assignments: the
    digest of the first one is in the status, and a different one takes a new number, which costs no budget.
    """
    seen = view.attempt
    if seen is not None and seen.number == status.attempt.number and seen.action is AttemptAction.RUN:
        return Issue(_issued(status, seen))
    if seen is not None and seen.number > status.attempt.number:
        status = next_attempt(view, status)
    full = gang.assemble(view, status)
    if full is None and status.attempt.number == 0:
        return Issue(status)
    if status.attempt.number == 0:
        status = next_attempt(view, status)
    elif status.attempt.assignment and (full is None or full.digest != status.attempt.assignment):
        status = _renewed(view, status)
    if full is None:
        waits = seen is not None and seen.number == status.attempt.number and seen.action is AttemptAction.HOLD
        return Issue(status, None if waits else WriteAttempt(_spec(view, status, AttemptAction.HOLD)))
    if not status.attempt.assignment:
        attempt = status.attempt.model_copy(update={"assignment": full.digest, "issued_at": view.now})
        status = status.model_copy(update={"attempt": attempt})
    spec = _spec(view, status, AttemptAction.RUN).model_copy(
        update={
            "workers": list(full.workers),
            "spares": list(full.spares),
            "previous_workers": [],
            "world_size": len(full.workers) * view.job.spec.ranks_per_worker,
        }
    )
    return Issue(status, WriteAttempt(spec))


def issue_stop(view: View, status: TrainingJobStatus) -> Issue:
    """Tell every launcher to flush and exit."""
    seen = view.attempt
    if seen is not None and seen.number > status.attempt.number:
        status = next_attempt(view, status)
    if seen is not None and seen.number == status.attempt.number and seen.action is AttemptAction.STOP:
        return Issue(status)
    spec = _spec(view, status, AttemptAction.STOP).model_copy(update={"previous_workers": []})
    return Issue(status, WriteAttempt(spec))


def _renewed(view: View, status: TrainingJobStatus) -> TrainingJobStatus:
    """The Attempt object is not as it was decided, and cannot be made so again: take a new number."""
    ran = status.attempt.running_at is not None
    if ran:
        status = end_attempt(
            view,
            status,
            cause=Cause.SPEC_CHANGED,
            rung=None,
            node=None,
            worker=None,
            message=f"the Attempt object of {status.attempt.id} was gone; do not delete it while the job runs",
            detected_at=view.now,
            healthy_at=view.now,
        )
    status = next_attempt(view, status)
    return status.model_copy(update={"restarts": status.restarts + 1}) if ran else status


def _issued(status: TrainingJobStatus, seen: AttemptSpec) -> TrainingJobStatus:
    if status.attempt.assignment:
        return status
    # Only where a status was lost: the object tells what was decided.
    digest = gang.Gang(tuple(seen.workers), ()).digest
    attempt = status.attempt.model_copy(update={"assignment": digest, "issued_at": seen.issued_at})
    return status.model_copy(update={"attempt": attempt})


def _spec(view: View, status: TrainingJobStatus, action: AttemptAction) -> AttemptSpec:
    return AttemptSpec(
        job=view.job.metadata.name,
        job_uid=view.job.metadata.uid,
        number=status.attempt.number,
        id=status.attempt.id,
        action=action,
        ranks_per_worker=view.job.spec.ranks_per_worker,
        previous_workers=view.previous_workers(),
        grace_seconds=view.policy.grace_seconds,
        eagle_eye=view.job.spec.eagle_eye,
        issued_at=status.attempt.issued_at or view.now,
    )
