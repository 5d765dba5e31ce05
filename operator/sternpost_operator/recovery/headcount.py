"""The worker counts of the status, and the first of those that are not as they should be."""

from __future__ import annotations

from sternpost_operator.recovery import tracking
from sternpost_operator.recovery.gang import is_assignable
from sternpost_operator.recovery.observed import PodPhase, PodView
from sternpost_operator.recovery.view import View
from sternpost_operator.resources.training_job_status import (
    MAX_EXCEPTIONS,
    Phase,
    TrainingJobStatus,
    WorkerException,
    Workers,
)

_MAX_REASON = 256


def count(view: View, status: TrainingJobStatus) -> TrainingJobStatus:
    """Count Pods and workers as they are seen now."""
    run = view.run(status)
    index_by_uid = {worker.uid: worker.index for worker in run.workers} if run else {}
    ready = [pod for pod in view.observed.pods if is_assignable(view, status, pod)]
    if run is not None:
        desired = len(run.workers)
        ready_workers = sum(pod.uid in index_by_uid for pod in ready)
    else:
        desired = view.job.spec.max_workers
        ready_workers = min(desired, len(ready))
    running = tracking.count_running(view, status)
    exceptions = [
        WorkerException(pod=pod.name, node=pod.node, worker=index_by_uid.get(pod.uid), reason=reason)
        for pod in sorted(view.observed.pods, key=lambda pod: (pod.uid not in index_by_uid, pod.slot))
        if (reason := _what_is_wrong(view, pod))
    ]
    workers = Workers(
        desired=0 if status.phase is Phase.SUSPENDED else desired,
        ready=ready_workers,
        running=status.workers.running if running is None else running,
        succeeded=tracking.count_succeeded(view, status),
        spares_ready=len(ready) - ready_workers,
        exceptions=exceptions[:MAX_EXCEPTIONS],
    )
    return status if workers == status.workers else status.model_copy(update={"workers": workers})


def _what_is_wrong(view: View, pod: PodView) -> str:
    if pod.deleting_since is not None:
        return "Terminating"
    if pod.node is not None and view.node_lost(pod.node):
        return "NodeLost"
    if pod.phase is PodPhase.SUCCEEDED or (pod.phase is PodPhase.RUNNING and pod.ready):
        return ""
    return (pod.reason or str(pod.phase))[:_MAX_REASON]
