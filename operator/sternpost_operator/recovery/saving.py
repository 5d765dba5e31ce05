"""A checkpoint just in time: a node said that it goes, so the job saves once more before it is moved."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from sternpost_operator.recovery.actions import WriteAttempt
from sternpost_operator.recovery.leaving import Leaving
from sternpost_operator.recovery.view import View
from sternpost_operator.resources.attempt import AttemptSpec
from sternpost_operator.resources.training_job_status import Recovery, TrainingJobStatus

SAVE_SECONDS = 30.0
"""The longest that a move waits for its checkpoint."""
LEAD_SECONDS = 3.0
"""Until every rank has heard of the step to save at."""
COMMIT_SECONDS = 1.0
"""The least that a commit takes: with less time left than that, after the step, there is no point in waiting."""
MAX_STALE_SECONDS = 12.0
"""Steps are not extrapolated further than this beyond the last one that was reported; reports come every ten seconds."""


@dataclass(frozen=True)
class Appointment:
    """Save after this step; move at `by` at the latest."""

    step: int
    by: datetime


def is_over(view: View, status: TrainingJobStatus, leaving: Leaving) -> bool:
    """Whether nothing is to be waited for any more: the checkpoint is committed, or cannot be any more."""
    if leaving.until is not None and view.now >= leaving.until:
        return True
    recovery = status.recovery
    if recovery is None or recovery.save_at_step is None or recovery.save_by is None:
        return appointment(view, status, leaving) is None and not _is_report_awaited(view, status)
    return is_saved(view, status) or view.now >= recovery.save_by


def is_saved(view: View, status: TrainingJobStatus) -> bool:
    """Whether the checkpoint that was asked for is committed."""
    step = status.recovery.save_at_step if status.recovery else None
    report = view.newest_report(status)
    committed = report.checkpoint.committed_step if report else None
    return step is not None and committed is not None and committed >= step


def appointment(view: View, status: TrainingJobStatus, leaving: Leaving) -> Appointment | None:
    """The step that all ranks can still save at together, or None if there is none in time."""
    pace = _pace(view, status)
    if view.job.spec.checkpoint is None or pace is None:
        return None
    step, rate, stale = pace
    ahead = 1 + math.ceil(rate * (stale + LEAD_SECONDS))
    by = view.now + timedelta(seconds=SAVE_SECONDS)
    if leaving.until is not None:
        by = min(by, leaving.until)
    needed = max(0.0, ahead / rate - stale) + COMMIT_SECONDS
    if view.now + timedelta(seconds=needed) > by:
        return None
    return Appointment(step + ahead, by)


def arrange(view: View, status: TrainingJobStatus, leaving: Leaving) -> TrainingJobStatus:
    """Note the step to save at, once, in a recovery that was noticed."""
    recovery = status.recovery
    made = appointment(view, status, leaving)
    if recovery is None or recovery.save_at_step is not None or made is None:
        return status
    noted = recovery.model_copy(update={"save_at_step": made.step, "save_by": made.by})
    return status.model_copy(update={"recovery": noted})


def write(view: View, status: TrainingJobStatus, run: AttemptSpec | None) -> tuple[WriteAttempt, ...]:
    """Tell the ranks of it; nothing where they were told already."""
    step = status.recovery.save_at_step if status.recovery else None
    if run is None or step is None or run.save_at_step == step:
        return ()
    return (WriteAttempt(run.model_copy(update={"save_at_step": step, "issued_at": view.now})),)


def _pace(view: View, status: TrainingJobStatus) -> tuple[int, float, float] | None:
    """The last step, steps a second, and how many seconds ago that step was, if all of that is known well enough."""
    report = view.report(status)
    if report is None or report.step is None or report.last_step_at is None:
        return None
    rate, stale = report.steps_per_second, max(0.0, (view.now - report.last_step_at).total_seconds())
    if rate is None or not math.isfinite(rate) or rate <= 0 or stale > max(MAX_STALE_SECONDS, 2 / rate):
        return None
    return report.step, rate, stale


def _is_report_awaited(view: View, status: TrainingJobStatus) -> bool:
    """Whether a job that makes steps will soon say how far it is: an operator that just began has not heard yet."""
    if view.job.spec.checkpoint is None or status.attempt.first_step_at is None or _pace(view, status) is not None:
        return False
    noticed_at = status.recovery.noticed_at if status.recovery else None
    return noticed_at is None or not view.passed(noticed_at, MAX_STALE_SECONDS)


def kept(recovery: Recovery | None) -> Recovery | None:
    """What is left of a recovery whose attempt made its first step: a failure noticed meanwhile, and its appointment."""
    if recovery is None or recovery.again_at is None:
        return None
    return Recovery(detected_at=recovery.again_at, save_at_step=recovery.save_at_step, save_by=recovery.save_by)
