"""Signs that come from the node under a worker: it is lost, it is ill, it is about to go."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from sternpost_operator.recovery import hardware, saving
from sternpost_operator.recovery.failure_signal import Signal
from sternpost_operator.recovery.observed import PodPhase
from sternpost_operator.recovery.view import View
from sternpost_operator.resources.attempt import AttemptSpec, AttemptWorker
from sternpost_operator.resources.training_job_status import Cause, TrainingJobStatus

SILENCE_SECONDS = 3
"""A worker that worker 0 has not heard of for so long is silent; sidecars send every second."""
FIRST_REPORT_SECONDS = 12
"""For how long an operator that just began waits for the first report of a job that runs."""


def describe(worker: AttemptWorker) -> str:
    """The worker in words."""
    return f"worker {worker.index} (Pod {worker.pod} on node {worker.node})"


def alive(view: View, status: TrainingJobStatus, run: AttemptSpec) -> frozenset[int]:
    """Workers that worker 0 heard of just now. They run, whatever is said of their nodes.

    A control plane that stood still calls all nodes not ready when it is back, for it has missed their heartbeats.
    """
    report = view.report(status)
    if report is None:
        return frozenset()
    # Both times are of worker 0's clock, which may differ from this one's.
    silence = timedelta(seconds=min(SILENCE_SECONDS, view.policy.node_lost_seconds))
    return frozenset(index for index, at in view.heard_at(status, run).items() if report.at - at <= silence)


def lost(
    view: View,
    status: TrainingJobStatus,
    worker: AttemptWorker,
    living: Iterable[int],
    last_step_at: datetime | None,
) -> Signal | None:
    """The node is gone, shut down, or has not been ready for too long while nobody hears of the worker."""
    if not view.node_lost(worker.node):
        return None
    node = view.nodes.get(worker.node)
    is_certain = node is None or view.node_out_of_service(worker.node)
    if not is_certain and worker.index in living:
        return None
    is_awaited = _is_report_awaited(view, status)
    if node is None:
        why = "is gone from the cluster"
    elif view.node_out_of_service(worker.node):
        why = "is out of service"
    else:
        why = f"has not been ready for {view.policy.node_lost_seconds:g} s"
    return Signal(
        Cause.NODE_LOST,
        at=node.ready_since if node else view.now,
        message=f"node {worker.node} {why}; {describe(worker)} was on it",
        worker=worker,
        blames_node=True,
        replace=True,
        decisive=is_certain or not is_awaited,
        patience_seconds=FIRST_REPORT_SECONDS,
        healthy_at=(node.last_heartbeat or node.ready_since) if node else last_step_at,
    )


def _is_report_awaited(view: View, status: TrainingJobStatus) -> bool:
    """Whether the operator may have begun just now, after the same standstill that makes nodes look lost."""
    if view.observed.last_progress is not None or status.attempt.running_at is None:
        return False
    noticed_at = status.recovery.noticed_at if status.recovery else None
    return not view.passed(noticed_at, FIRST_REPORT_SECONDS)


def unhealthy(view: View, worker: AttemptWorker, last_step_at: datetime | None) -> Signal | None:
    """The node's own conditions say that its hardware is bad."""
    condition = view.bad_nodes.get(worker.node)
    if condition is None:
        return None
    return Signal(
        Cause.NODE_UNHEALTHY,
        at=condition.since or view.now,
        message=f"node {worker.node} says {hardware.describe(condition)}; {describe(worker)} is on it",
        worker=worker,
        blames_node=True,
        proven=True,
        replace=True,
        decisive=True,
        healthy_at=condition.since or last_step_at,
    )


def leaving(view: View, status: TrainingJobStatus, worker: AttemptWorker) -> Signal | None:
    """The node, or the Pod, is about to go and said so. No fault of the node."""
    pod = view.pod_of(worker)
    announced = view.leaving(pod) if pod is not None else view.leaving_nodes.get(worker.node)
    if announced is None:
        return None
    is_gone = pod is None or pod.phase is PodPhase.FAILED
    saved = (
        f"; step {status.recovery.save_at_step} was saved before"
        if status.recovery and saving.is_saved(view, status)
        else ""
    )
    return Signal(
        Cause.NODE_LEAVING,
        at=announced.since or view.now,
        message=f"{announced.reason}; {describe(worker)} leaves it{saved}",
        worker=worker,
        replace=True,
        leaving=announced,
        decisive=is_gone or saving.is_over(view, status, announced),
        patience_seconds=saving.SAVE_SECONDS,
        healthy_at=announced.since or view.now,
    )
