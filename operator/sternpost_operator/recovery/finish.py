"""How a job ends, and what is left of it."""

from __future__ import annotations

from datetime import datetime, timedelta

from sternpost_operator.recovery import conditions, incidents, pods, tracking
from sternpost_operator.recovery.actions import Action, DeleteJob, WriteAttempt
from sternpost_operator.recovery.ladder import Verdict
from sternpost_operator.recovery.observed import PodPhase, PodView
from sternpost_operator.recovery.view import View, exited_well
from sternpost_operator.resources.attempt import AttemptSpec
from sternpost_operator.resources.progress import LauncherState
from sternpost_operator.resources.training_job import TrainingJob
from sternpost_operator.resources.training_job_status import Phase, TrainingJobStatus

FLUSH_SECONDS = 60.0
"""Beyond the grace period, for the Pods of a complete attempt to end: time to commit the newest checkpoint."""

UNSENT_SECONDS = 86_400.0
"""For how long a job whose time is over is kept because a memory service that is away has not taken its incidents."""


def all_ranks_succeeded(view: View, status: TrainingJobStatus, run: AttemptSpec) -> bool:
    """Whether every worker of the current attempt said that its ranks ended with 0."""
    reports = view.worker_reports(status, run)
    return bool(run.workers) and all(view.has_finished(worker, reports.get(worker.index)) for worker in run.workers)


def completed(view: View, run: AttemptSpec) -> tuple[Action, ...]:
    """Let the launchers exit; that all succeeded stands in the Attempt from then on."""
    if run.complete:
        return ()
    return (WriteAttempt(run.model_copy(update={"complete": True, "issued_at": view.now})),)


def has_succeeded(view: View, status: TrainingJobStatus, run: AttemptSpec) -> bool:
    """Whether the job is done.

    A Pod is done when it has Succeeded: until then its checkpoint sidecar may still be writing. In a complete attempt, a Pod
    that cannot say so any more, or does not in time, is done as well.
    """
    if run.complete and view.passed(run.issued_at, view.policy.grace_seconds + FLUSH_SECONDS):
        return True
    reports = view.worker_reports(status, run)
    for worker in run.workers:
        pod, report = view.pod_of(worker), reports.get(worker.index)
        if pod is not None and pod.phase is PodPhase.SUCCEEDED:
            continue
        said_so = run.complete or (report is not None and report.launcher is LauncherState.SUCCEEDED)
        can_say_more = pod is not None and pod.phase is not PodPhase.FAILED and not view.node_lost(worker.node)
        if not said_so or can_say_more:
            return False
    return bool(run.workers)


def succeed(view: View, status: TrainingJobStatus) -> TrainingJobStatus:
    """Make the job Succeeded."""
    status = tracking.refresh(view, status)
    status = status.model_copy(update={"phase": Phase.SUCCEEDED, "finished_at": view.now, "recovery": None})
    status = conditions.put(
        status, view.now, "Succeeded", True, "AllWorkersSucceeded", message="All workers exited with 0."
    )
    why = "all workers exited with 0"
    if not tracking.has_made_steps(status):
        status = conditions.put(
            status,
            view.now,
            "NoStepsReported",
            True,
            "NoSteps",
            message="The trainer exited with 0 and never reported a step. If it should have trained, look at the log of "
            "worker 0; if it trains without reporting, use StepReporter to make its progress known.",
        )
        status = conditions.put(status, view.now, "ProgressUnknown", True, "NoStepMetrics")
        why += ", and no step was ever reported"
    return incidents.finished(view, tracking.refresh(view, status), why)


def fail(view: View, status: TrainingJobStatus, verdict: Verdict) -> TrainingJobStatus:
    """Make the job Failed. The record of its last attempt is written already."""
    if verdict.failure_reason == "BudgetExceeded":
        way_out = "Mend the cause, or raise spec.recovery.budgets, and create the job anew"
        why = f"{verdict.cause}: {verdict.message}; no rung of the recovery ladder may be used again"
    else:
        way_out = (
            "A rule of spec.recovery.rules ends the job for this exit code; mend the cause and create the job anew"
        )
        why = f"{verdict.cause}: {verdict.message}"
    if status.checkpoint is not None and status.checkpoint.last_step is not None:
        way_out += f"; with the same checkpoint.storage it resumes from step {status.checkpoint.last_step}"
    status = status.model_copy(update={"phase": Phase.FAILED, "finished_at": view.now, "recovery": None})
    status = conditions.put(status, view.now, "Failed", True, verdict.failure_reason, message=f"{why}. {way_out}.")
    return incidents.finished(view, tracking.refresh(view, status), why, verdict.signal.node)


def clean_up(view: View, status: TrainingJobStatus) -> tuple[Action, ...]:
    """Delete what a finished job does not need. The completed Pods of a success stay: they hold the logs."""
    if status.phase is Phase.FAILED:
        return pods.delete_all(view)
    return pods.delete_where(view, lambda pod: not _holds_logs(view, status, pod))


def delete_at(job: TrainingJob, status: TrainingJobStatus) -> datetime | None:
    """When the time that a finished job stays after its end runs out; None: it stays."""
    seconds = job.spec.ttl_seconds_after_finished
    if seconds is None or status.finished_at is None or not status.phase.terminal:
        return None
    return status.finished_at + timedelta(seconds=seconds)


def expire(view: View, status: TrainingJobStatus) -> tuple[Action, ...]:
    """Delete the job when its time is over, and the memory service has taken what happened to it, or long has not."""
    at = delete_at(view.job, status)
    if at is None or view.now < at:
        return ()
    if status.unsent_incidents and not view.passed(at, UNSENT_SECONDS):
        return ()
    return (DeleteJob(),)


def _holds_logs(view: View, status: TrainingJobStatus, pod: PodView) -> bool:
    run = view.run(status)
    if run is not None and pod.uid not in {worker.uid for worker in run.workers}:
        return False
    return exited_well(pod)
