"""What worker 0 reports, in the status: at most once a minute, and at each transition."""

from __future__ import annotations

import math

from sternpost_operator.recovery import goodput, saving, stages
from sternpost_operator.recovery.observed import PodPhase
from sternpost_operator.recovery.view import View, latest
from sternpost_operator.resources.attempt import AttemptSpec
from sternpost_operator.resources.progress import LauncherState, ProgressReport
from sternpost_operator.resources.training_job_status import (
    CheckpointStatus,
    CurrentAttempt,
    Phase,
    Progress,
    TrainingJobStatus,
)

REFRESH_SECONDS = 60
UNKNOWN_SECONDS = 60
"""A trainer that has run for so long without serving any step metrics counts as one that never will."""


def follow(view: View, status: TrainingJobStatus) -> TrainingJobStatus:
    """Take in what is reported of the current attempt."""
    run = view.run(status)
    report = view.report(status)
    if run is None or report is None:
        return status
    reports = view.worker_reports(status, run)
    running = all(
        view.has_finished(worker, reports.get(worker.index))
        or ((each := reports.get(worker.index)) is not None and each.launcher is LauncherState.RUNNING)
        for worker in run.workers
    )
    attempt = _times(view, status.attempt, run, report, running=running)
    if attempt != status.attempt:
        status = status.model_copy(update={"attempt": attempt})
    status = stages.fill(status, report, list(reports.values()), all_running=running)
    if _has_recovered(view, status, report):
        status = status.model_copy(update={"recovery": saving.kept(status.recovery)})
    return status


def refresh(view: View, status: TrainingJobStatus) -> TrainingJobStatus:
    """Write the newest figures."""
    report = view.newest_report(status)
    if report is not None:
        attempt = status.attempt.model_copy(
            update={
                "last_step": report.step if report.step is not None else status.attempt.last_step,
                "last_step_at": report.last_step_at or status.attempt.last_step_at,
            }
        )
        progress = Progress(
            step=report.step,
            steps_per_second=_finite(report.steps_per_second),
            loss=_finite(report.loss),
            training_phase=report.phase,
            updated_at=view.now,
        )
        status = status.model_copy(update={"attempt": attempt, "progress": progress})
        status = _with_checkpoint(view, status, report)
        status = _with_last_step(status)
    return goodput.refresh(status, view.now)


def is_due(view: View, status: TrainingJobStatus) -> bool:
    """Whether the last figures are old, and there are newer ones."""
    if view.report(status) is None:
        return False
    return status.progress is None or view.passed(status.progress.updated_at, REFRESH_SECONDS)


def is_transition(before: TrainingJobStatus, after: TrainingJobStatus) -> bool:
    """Whether something happened that is worth the figures of its moment."""
    return _moment(before) != _moment(after)


def has_made_steps(status: TrainingJobStatus) -> bool:
    """Whether any attempt of the job has ever reported a step."""
    return (
        status.attempt.first_step_at is not None
        or (status.progress is not None and status.progress.step is not None)
        or any(record.first_step is not None for record in status.attempts)
    )


def reports_no_steps(view: View, status: TrainingJobStatus) -> bool:
    """Whether the trainer runs and keeps its steps to itself."""
    report = view.report(status)
    return (
        report is not None
        and not report.reports_steps
        and not has_made_steps(status)
        and view.passed(status.attempt.running_at, UNKNOWN_SECONDS)
    )


def _times(
    view: View, attempt: CurrentAttempt, run: AttemptSpec, report: ProgressReport, *, running: bool
) -> CurrentAttempt:
    new: dict[str, object] = {}
    if running and attempt.running_at is None:
        started = latest(each.started_at for each in report.workers if each.attempt == run.id)
        new["running_at"] = min(started or view.now, view.now)
    if attempt.first_step_at is None and report.first_step_at is not None:
        new["first_step_at"] = report.first_step_at
        new["first_step"] = report.first_step
    if attempt.restored_step is None and report.restored is not None:
        new["restored_step"] = max(0, report.restored.step)
    return attempt.model_copy(update=new) if new else attempt


def _has_recovered(view: View, status: TrainingJobStatus, report: ProgressReport) -> bool:
    """Whether the attempt has made its first step, or runs and will never tell of one."""
    recovery = status.recovery
    if recovery is None or recovery.decided_at is None:
        return False
    return report.first_step_at is not None or reports_no_steps(view, status)


def _with_checkpoint(view: View, status: TrainingJobStatus, report: ProgressReport) -> TrainingJobStatus:
    policy, found = view.job.spec.checkpoint, report.checkpoint
    if found.committed_step is None:
        return status
    checkpoint = CheckpointStatus(
        last_step=found.committed_step,
        committed_at=found.committed_at,
        location=policy.storage if policy else None,
    )
    return status.model_copy(update={"checkpoint": checkpoint})


def _with_last_step(status: TrainingJobStatus) -> TrainingJobStatus:
    """Reports come once a second, and none after the ranks' end: the last checkpoint knows how far they got."""
    saved = status.checkpoint.last_step if status.checkpoint else None
    if status.phase is not Phase.SUCCEEDED or status.progress is None or saved is None:
        return status
    progress = status.progress.model_copy(update={"step": max(saved, status.progress.step or 0)})
    attempt = status.attempt.model_copy(update={"last_step": max(saved, status.attempt.last_step or 0)})
    return status.model_copy(update={"progress": progress, "attempt": attempt})


def _moment(status: TrainingJobStatus) -> tuple[object, ...]:
    attempt, recovery = status.attempt, status.recovery
    return (
        status.phase,
        attempt.number,
        attempt.running_at,
        attempt.first_step_at,
        recovery is None,
        recovery.decided_at if recovery else None,
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def count_running(view: View, status: TrainingJobStatus) -> int | None:
    """How many workers run their ranks; None while that is not known."""
    run = view.run(status)
    if run is None:
        return 0
    if view.report(status) is None:
        return None
    reports = view.worker_reports(status, run).values()
    return sum(each.launcher is LauncherState.RUNNING for each in reports)


def count_succeeded(view: View, status: TrainingJobStatus) -> int:
    """How many workers of the current attempt have finished."""
    run = view.run(status)
    if run is None:
        return 0
    pods = (view.pod_of(worker) for worker in run.workers)
    return sum(pod is not None and pod.phase is PodPhase.SUCCEEDED for pod in pods)
