"""The share of the time that went into steps which count.

An attempt's productive time runs from its first step to its last. When the next one resumes, the share of the steps that
it must repeat is taken off again.
"""

from __future__ import annotations

from datetime import datetime

from sternpost_operator.resources.training_job_status import (
    AttemptRecord,
    CurrentAttempt,
    Goodput,
    TrainingJobStatus,
)


def step_seconds(attempt: CurrentAttempt) -> float:
    """Seconds from the attempt's first step to its last."""
    if attempt.first_step_at is None or attempt.last_step_at is None:
        return 0.0
    return round(max(0.0, (attempt.last_step_at - attempt.first_step_at).total_seconds()), 3)


def settle(status: TrainingJobStatus) -> TrainingJobStatus:
    """Move the time of the current attempt, which ends, to the settled time."""
    settled = round(status.goodput.settled_seconds + step_seconds(status.attempt), 3)
    return status.model_copy(update={"goodput": status.goodput.model_copy(update={"settled_seconds": settled})})


def without_lost(goodput: Goodput, record: AttemptRecord, lost_steps: int) -> Goodput:
    """Take off the time of steps that an ended attempt had made in vain."""
    steps = (record.last_step or 0) - (record.first_step or 0)
    if steps <= 0 or lost_steps <= 0:
        return goodput
    lost = min(record.step_seconds * lost_steps / steps, goodput.settled_seconds)
    return goodput.model_copy(update={"settled_seconds": round(goodput.settled_seconds - lost, 3)})


def refresh(status: TrainingJobStatus, now: datetime) -> TrainingJobStatus:
    """The figures as of `now`, or as of the end of a job that has ended."""
    if status.started_at is None:
        return status
    total = round(max(0.0, ((status.finished_at or now) - status.started_at).total_seconds()), 3)
    productive = round(min(status.goodput.settled_seconds + step_seconds(status.attempt), total), 3)
    ratio = round(productive / total, 4) if total > 0 else 0.0
    goodput = status.goodput.model_copy(
        update={"productive_seconds": productive, "total_seconds": total, "ratio": ratio}
    )
    return status.model_copy(update={"goodput": goodput})
