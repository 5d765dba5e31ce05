"""What an observation says is wrong with the current attempt: each sign with its time, and whom it blames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sternpost_operator.recovery import node_signals
from sternpost_operator.recovery.anomalies import anomaly_signals
from sternpost_operator.recovery.failure_signal import Signal
from sternpost_operator.recovery.observed import PodPhase, PodView
from sternpost_operator.recovery.view import View, exited_well
from sternpost_operator.resources.attempt import AttemptSpec, AttemptWorker
from sternpost_operator.resources.progress import LauncherState, WorkerReport
from sternpost_operator.resources.training_job_status import Cause, TrainingJobStatus

ANSWER_SECONDS = 10
"""For how long worker 0 need not answer about an attempt, from its issue or the last answer on."""
SILENT_SECONDS = 30
"""How long worker 0 may be silent after that before its Pod is replaced."""
UNFINISHED_SECONDS = 60
"""How much longer than worker 0 the others may take to finish before it counts as a sign of a failure."""


@dataclass(frozen=True)
class Findings:
    """All signs, and whether more evidence is likely to come."""

    signals: tuple[Signal, ...]
    awaits: bool = False
    """Something else than what the signs say looks wrong, too, and will be known soon."""


def find(view: View, status: TrainingJobStatus, detected_at: datetime | None) -> Findings:
    """Signs of failure of the current attempt, from its own workers, reports and anomalies only.

    `detected_at` is when a first sign was noticed, if one was.
    """
    run = view.run(status)
    if run is None:
        return Findings(tuple(_stuck_pods(view, status)))
    reports = view.worker_reports(status, run)
    working = [worker for worker in run.workers if not view.has_finished(worker, reports.get(worker.index))]
    last_step_at = newest.last_step_at if (newest := view.newest_report(status)) else status.attempt.last_step_at
    signals: list[Signal] = []
    living = node_signals.alive(view, status, run)
    for worker in working:
        lost = node_signals.lost(view, status, worker, living, last_step_at)
        signals.extend([lost] if lost else _of_worker(view, status, worker, reports.get(worker.index), last_step_at))
    failed = {signal.worker.index for signal in signals if signal.worker and signal.cause is Cause.RANK_FAILED}
    if failed and len(failed) == len(working):
        signals = [signal.made_decisive() for signal in signals]
    silent = _silent(view, status, run, working, failed)
    if failed and view.passed(detected_at, view.policy.node_lost_seconds):
        signals.extend(_silent_signal(view, worker) for worker in silent)
    signals.extend(anomaly_signals(view, status, run, working, last_step_at))
    signals.extend(_worker_zero(view, status, run, working, last_step_at))
    signals.extend(_start_timeout(view, status, run, working, reports))
    # Lost nodes whose workers live are waited for no longer: they may stay like that.
    unready = any(
        worker.node in view.nodes and not view.node_ready(worker.node)
        for worker in working
        if not (worker.index in living and view.node_lost(worker.node))
    )
    undecided = bool(silent) and bool(failed) and not view.passed(detected_at, view.policy.node_lost_seconds)
    return Findings(tuple(signals), awaits=unready or undecided)


def _of_worker(
    view: View,
    status: TrainingJobStatus,
    worker: AttemptWorker,
    report: WorkerReport | None,
    last_step_at: datetime | None,
) -> Iterator[Signal]:
    ill = node_signals.unhealthy(view, worker, last_step_at)
    if ill is not None:
        yield ill
    pod, name = view.pod_of(worker), node_signals.describe(worker)
    is_gone = pod is None or pod.phase is PodPhase.FAILED
    leaving = node_signals.leaving(view, status, worker)
    if leaving is not None:
        yield leaving
    elif is_gone or (pod is not None and pod.deleting_since is not None):
        yield Signal(
            Cause.POD_LOST,
            at=(pod.deleting_since if pod else None) or view.now,
            message=f"{name} {_lost_how(pod)}",
            worker=worker,
            replace=True,
            patience_seconds=view.policy.settle_seconds,
            exit_code=pod.trainer_exit_code if pod else None,
            healthy_at=last_step_at,
        )
        return
    failure = None if pod is None or is_gone else _rank_failure(view, pod, report, name)
    if failure is not None:
        at, message, exit_code = failure
        yield Signal(
            Cause.RANK_FAILED,
            at=at,
            message=message,
            worker=worker,
            patience_seconds=view.policy.settle_seconds,
            exit_code=exit_code,
            healthy_at=at,
        )


def _lost_how(pod: PodView | None) -> str:
    if pod is None:
        return "is gone"
    if pod.deleting_since is not None:
        return "is being deleted"
    return f"failed: {pod.reason}" if pod.reason else "failed"


def _rank_failure(
    view: View, pod: PodView, report: WorkerReport | None, name: str
) -> tuple[datetime, str, int | None] | None:
    if report is not None and report.launcher is LauncherState.FAILED:
        first = report.first_failure
        if first is not None:
            how = f"signal {-first.exit_code}" if first.exit_code < 0 else f"exit code {first.exit_code}"
            return first.at, f"rank {first.rank} of {name} ended with {how}", first.exit_code
        # The report repeats itself each second; when it began is not in it.
        return view.now, f"{name} failed: {report.message or 'no reason given'}", pod.trainer_exit_code
    if pod.trainer_exit_code is not None and not pod.ready and not exited_well(pod):
        why = f" ({pod.reason})" if pod.reason else ""
        return (
            view.now,
            f"the trainer container of {name} ended with {pod.trainer_exit_code}{why}",
            pod.trainer_exit_code,
        )
    return None


def _silent(
    view: View, status: TrainingJobStatus, run: AttemptSpec, working: list[AttemptWorker], failed: set[int]
) -> list[AttemptWorker]:
    """Workers that worker 0 no longer hears of, while it does answer."""
    if view.report(status) is None:
        return []
    heard = view.heard_at(status, run)
    oldest = view.now - timedelta(seconds=node_signals.SILENCE_SECONDS)
    return [
        worker
        for worker in working
        if worker.index not in failed and heard.get(worker.index, run.issued_at) < oldest and view.pod_of(worker)
    ]


def _silent_signal(view: View, worker: AttemptWorker) -> Signal:
    return Signal(
        Cause.WORKER_SILENT,
        at=view.now,
        message=(
            f"worker {worker.index} (Pod {worker.pod} on node {worker.node}) fell silent when the others' ranks failed"
        ),
        worker=worker,
        replace=True,
    )


def _worker_zero(
    view: View,
    status: TrainingJobStatus,
    run: AttemptSpec,
    working: list[AttemptWorker],
    last_step_at: datetime | None,
) -> Iterator[Signal]:
    """Worker 0 collects what the others report: only the operator can see that it is silent itself."""
    if view.report(status) is not None or not working or not view.passed(run.issued_at, ANSWER_SECONDS):
        return
    last = view.newest_report(status)
    if last is not None and not view.passed(last.at, ANSWER_SECONDS):
        return
    zero = working[0]
    if zero.index == 0:
        if view.pod_of(zero) is not None:
            yield Signal(
                Cause.WORKER_SILENT,
                at=view.now,
                message=f"worker 0 (Pod {zero.pod} on node {zero.node}) does not answer about attempt {run.id}",
                worker=zero,
                replace=True,
                patience_seconds=SILENT_SECONDS,
                healthy_at=last_step_at,
            )
    elif view.passed(last_step_at or status.attempt.running_at or run.issued_at, UNFINISHED_SECONDS):
        yield Signal(
            Cause.WORKER_SILENT,
            at=view.now,
            message=f"worker 0 has finished and worker {zero.index} (Pod {zero.pod} on node {zero.node}) has not",
            worker=zero,
            replace=True,
            patience_seconds=view.policy.start_seconds,
            healthy_at=last_step_at,
        )


def _start_timeout(
    view: View,
    status: TrainingJobStatus,
    run: AttemptSpec,
    working: list[AttemptWorker],
    reports: dict[int, WorkerReport],
) -> Iterator[Signal]:
    if status.attempt.running_at is not None or not view.passed(run.issued_at, view.policy.start_seconds):
        return
    running = {index for index, report in reports.items() if report.launcher is LauncherState.RUNNING}
    late = [worker for worker in working if worker.index not in running]
    # When most have not started, none of them is the one to blame.
    few = 2 * len(late) <= len(run.workers)
    for worker in late:
        report = reports.get(worker.index)
        state = f"its launcher is {report.launcher}: {report.message}" if report else "its launcher was not heard of"
        yield Signal(
            Cause.START_TIMEOUT,
            at=run.issued_at,
            message=(
                f"worker {worker.index} (Pod {worker.pod} on node {worker.node}) had not started its ranks after "
                f"{view.policy.start_seconds:g} s; {state}"
            ),
            worker=worker,
            replace=few,
            decisive=True,
            healthy_at=run.issued_at,
        )


def _stuck_pods(view: View, status: TrainingJobStatus) -> Iterator[Signal]:
    """While an attempt waits for its Pods: Pods that have a node, and still are not ready after `startSeconds`."""
    waiting_since = status.attempt.issued_at or status.started_at
    if status.attempt.assignment or waiting_since is None or not _gang_incomplete(view):
        return
    for pod in view.observed.pods:
        if pod.node is None or pod.ready or pod.deleting_since is not None or pod.created_at is None:
            continue
        if pod.phase not in (PodPhase.PENDING, PodPhase.RUNNING) or exited_well(pod) or not view.node_ready(pod.node):
            continue
        since = max(pod.created_at, waiting_since)
        if view.passed(since, view.policy.start_seconds):
            why = f": {pod.reason}" if pod.reason else ""
            yield Signal(
                Cause.START_TIMEOUT,
                at=since,
                message=f"Pod {pod.name} on node {pod.node} is not ready after {view.policy.start_seconds:g} s{why}",
                pod_uid=pod.uid,
                pod_node=pod.node,
                replace=True,
                decisive=True,
                healthy_at=since,
            )


def _gang_incomplete(view: View) -> bool:
    ready = sum(pod.ready and pod.deleting_since is None for pod in view.observed.pods)
    return ready < view.job.spec.min_workers
