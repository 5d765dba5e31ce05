"""What eagle-eye's findings say: only those of the current attempt count, and only about its own workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from sternpost_operator.recovery.failure_signal import Signal
from sternpost_operator.recovery.view import View
from sternpost_operator.resources.anomaly import AnomalyKind, AnomalySpec
from sternpost_operator.resources.attempt import AttemptSpec, AttemptWorker
from sternpost_operator.resources.training_job_status import Cause, TrainingJobStatus


def anomaly_signals(
    view: View,
    status: TrainingJobStatus,
    run: AttemptSpec,
    working: Sequence[AttemptWorker],
    last_step_at: datetime | None,
) -> Iterator[Signal]:
    """A sign for each finding that is reason to act.

    Where the worker is, the Attempt says, not the finding: a job cannot have a node excluded that it does not run on.
    """
    heard = view.heard_at(status, run)
    for each in view.observed.anomalies:
        spec = each.spec
        if spec.job != view.job.metadata.name or spec.attempt != run.id:
            continue
        worker = _blamed(spec, working)
        match spec.kind:
            case AnomalyKind.HANG:
                yield _signal(spec, Cause.HANG, worker, healthy_at=last_step_at or spec.first_seen)
            case AnomalyKind.WORKER_GONE:
                if worker is not None and spec.evict and _still_gone(view, spec, heard.get(worker.index)):
                    yield _signal(spec, Cause.WORKER_SILENT, worker, replace=True)
            case AnomalyKind.SLOW:
                if worker is not None and spec.evict:
                    yield _signal(spec, Cause.SLOW_NODE, worker, blames_node=True, replace=True)
            case AnomalyKind.HARDWARE:
                if worker is not None and spec.evict:
                    yield _signal(spec, Cause.NODE_UNHEALTHY, worker, blames_node=True, replace=True)
            case AnomalyKind.LOSS | AnomalyKind.DATA_STALL | AnomalyKind.STORAGE_STALL | AnomalyKind.OUTLIER:
                pass  # for people: no machine is to blame for the first three, and an outlier is only suspected


def _blamed(spec: AnomalySpec, working: Sequence[AttemptWorker]) -> AttemptWorker | None:
    """The worker that the finding names in every way it names one, if there is exactly that."""
    if spec.worker is None and spec.pod is None and spec.node is None:
        return None
    found = [
        worker
        for worker in working
        if spec.worker in (None, worker.index) and spec.pod in (None, worker.pod) and spec.node in (None, worker.node)
    ]
    return found[0] if found and (len(found) == 1 or spec.node is not None) else None


def _still_gone(view: View, spec: AnomalySpec, heard_at: datetime | None) -> bool:
    """Whether the worker stays silent for longer than the loss of its node would take to be noticed."""
    if heard_at is not None and heard_at > spec.last_seen:
        return False
    return view.passed(spec.first_seen, view.policy.node_lost_seconds + view.policy.settle_seconds)


def _signal(
    spec: AnomalySpec,
    cause: Cause,
    worker: AttemptWorker | None,
    *,
    blames_node: bool = False,
    replace: bool = False,
    healthy_at: datetime | None = None,
) -> Signal:
    where = f"worker {worker.index} (Pod {worker.pod} on node {worker.node})" if worker else "the job as a whole"
    return Signal(
        cause,
        at=spec.first_seen,
        message=f"{spec.kind} of {where}, confidence {spec.confidence:.2f}: {spec.evidence}",
        worker=worker,
        blames_node=blames_node,
        replace=replace,
        decisive=True,
        healthy_at=healthy_at or spec.first_seen,
    )
