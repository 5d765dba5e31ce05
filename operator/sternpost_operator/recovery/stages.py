"""How long each stage of a recovery took, and which steps it cost. Filled in as it becomes known, then never changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sternpost_operator.recovery import goodput
from sternpost_operator.recovery.gang import must_go
from sternpost_operator.recovery.observed import PodView
from sternpost_operator.recovery.view import View, latest
from sternpost_operator.resources.progress import ProgressReport, WorkerReport
from sternpost_operator.resources.training_job_status import AttemptRecord, Rung, Stages, TrainingJobStatus


def fill(
    status: TrainingJobStatus, report: ProgressReport, workers: Sequence[WorkerReport], *, all_running: bool
) -> TrainingJobStatus:
    """Complete the record of the attempt before with what `report` says of the current one."""
    if not status.attempts or status.attempts[-1].stages.first_step is not None:
        return status
    status = _fill_lost_steps(status, report)
    record = status.attempts[-1]
    if record.rung is None:
        return status  # a stop that was asked for is no recovery, and has no stages
    return _with_stages(status, _stages(record, report, workers, all_running=all_running))


def fill_pods(view: View, status: TrainingJobStatus) -> TrainingJobStatus:
    """Complete the record of the attempt before with what became of the Pods. A recovery in place replaces none."""
    if not status.attempts:
        return status
    record = status.attempts[-1]
    if record.rung is None or status.attempt.number <= record.number:
        return status
    run = view.run(status)
    working = {worker.uid for worker in run.workers} if run else set()
    condemned = {
        pod.uid for pod in view.observed.pods if pod.uid not in working and _had_to_go(view, status, record, pod)
    }
    since = _seconds(record.decided_at, view.now)
    found: dict[str, float] = {}
    if record.rung is not Rung.RANKS and not condemned:
        found["delete"] = since
        filled = {pod.slot for pod in view.observed.pods if pod.deleting_since is None}
        if filled >= set(range(view.job.spec.max_workers + view.job.spec.spares)):
            found["create"] = since
    if status.attempt.assignment and status.attempt.issued_at is not None:
        found["ready"] = _seconds(record.decided_at, status.attempt.issued_at)
    return _with_stages(status, _added(record.stages, found))


def _had_to_go(view: View, status: TrainingJobStatus, record: AttemptRecord, pod: PodView) -> bool:
    """Whether the Pod is an old one, and ends. Kubernetes tells the creation in whole seconds, cut off."""
    is_old = pod.created_at is None or pod.created_at <= record.decided_at
    return is_old and (pod.deleting_since is not None or must_go(view, status, pod))


def _added(known: Stages, found: Mapping[str, float]) -> Stages:
    """The stages with what is found out now; what was known stays as it is."""
    new = {name: value for name, value in found.items() if getattr(known, name) is None}
    return known.model_copy(update=new) if new else known


def _with_stages(status: TrainingJobStatus, stages: Stages) -> TrainingJobStatus:
    record = status.attempts[-1]
    if stages == record.stages:
        return status
    record = record.model_copy(update={"stages": stages})
    return status.model_copy(update={"attempts": [*status.attempts[:-1], record]})


def _stages(
    record: AttemptRecord, report: ProgressReport, workers: Sequence[WorkerReport], *, all_running: bool
) -> Stages:
    # Whoever restarted its ranks had ended the old ones; a new Pod had none, so that it has no time.
    terminated = max(record.decided_at, latest(each.terminated_at for each in workers) or record.decided_at)
    started = max(terminated, latest(each.started_at for each in workers) or terminated)
    found: dict[str, float] = {}
    if all_running or report.first_step_at is not None:
        found["terminate"] = _seconds(record.decided_at, terminated)
        found["start"] = _seconds(terminated, started)
    restored = max(started, report.restored.at) if report.restored else None
    if report.restored is not None and restored is not None and "start" in found:
        found["restore"] = _seconds(started, restored)
    if report.first_step_at is not None:
        found["first_step"] = _seconds(restored or started, report.first_step_at)
    return _added(record.stages, found)


def _fill_lost_steps(status: TrainingJobStatus, report: ProgressReport) -> TrainingJobStatus:
    """Which step the job went back to. Attempts in between that made no step lost none."""
    resumed = _resumed_step(report)
    if resumed is None or status.attempts[-1].lost_steps is not None:
        return status
    open_records = [index for index, record in enumerate(status.attempts) if record.lost_steps is None]
    furthest = max(open_records, key=lambda index: (_reached(status.attempts[index]), index))
    lost = max(0, _reached(status.attempts[furthest]) - resumed)
    records = list(status.attempts)
    for index in open_records:
        records[index] = records[index].model_copy(update={"lost_steps": lost if index == furthest else 0})
    if resumed > _reached(records[furthest]):
        # Reports come once a second: the checkpoint proves that it got further than the last one said.
        records[furthest] = records[furthest].model_copy(update={"last_step": resumed})
    records[-1] = records[-1].model_copy(update={"resumed_step": resumed})
    return status.model_copy(
        update={
            "attempts": records,
            "lost_steps": status.lost_steps + lost,
            "goodput": goodput.without_lost(status.goodput, status.attempts[furthest], lost),
        }
    )


def _resumed_step(report: ProgressReport) -> int | None:
    if report.restored is not None:
        return max(0, report.restored.step)
    # A script that restores by other means shows where it resumed by its first step.
    return None if report.first_step is None else max(0, report.first_step - 1)


def _reached(record: AttemptRecord) -> int:
    return record.last_step or 0


def _seconds(start: datetime, end: datetime) -> float:
    return round(max(0.0, (end - start).total_seconds()), 3)
