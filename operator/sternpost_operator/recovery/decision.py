"""From the first sign of a failure to the decision, in two phases that survive any restart of the operator."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sternpost_operator.recovery import attempts, exclusion, finish, incidents, ladder, saving, signals, tracking
from sternpost_operator.recovery.failure_signal import Signal
from sternpost_operator.recovery.view import View
from sternpost_operator.resources.training_job_status import Phase, Recovery, TrainingJobStatus


def decide(view: View, status: TrainingJobStatus) -> TrainingJobStatus:
    """Notice, wait for evidence, decide: the status after it, with the budget charged and the next attempt's number."""
    detected_at = status.recovery.noticed_at if status.recovery else None
    found = signals.find(view, status, detected_at)
    if not found.signals:
        return _forget(status) if detected_at is not None else status
    noticed_at = detected_at or view.now
    ripe = [each for each in found.signals if each.decisive or view.passed(noticed_at, each.patience_seconds)]
    is_decisive = any(each.decisive for each in found.signals)
    if not ripe or (found.awaits and not is_decisive):
        status = status if detected_at is not None else _notice(status, found.signals[0], view.now)
        return _with_save(view, status, found.signals)
    settle = view.policy.settle_seconds
    believed = [
        each for each in found.signals if each in ripe or each.patience_seconds <= settle or each.leaving is not None
    ]
    return _carry_out(view, status, ladder.judge(view, status, believed), noticed_at)


def _notice(status: TrainingJobStatus, first: Signal, now: datetime) -> TrainingJobStatus:
    recovery = status.recovery
    if recovery is not None and recovery.decided_at is not None:
        recovery = recovery.model_copy(update={"again_at": now})
    else:
        recovery = Recovery(detected_at=now, message=first.message[: ladder.MAX_MESSAGE])
    return status.model_copy(update={"recovery": recovery})


def _with_save(view: View, status: TrainingJobStatus, found: Iterable[Signal]) -> TrainingJobStatus:
    """Make use of the time until somebody goes: all ranks save a checkpoint at a step to come."""
    for leaving in (each.leaving for each in found):
        if leaving is not None:
            return saving.arrange(view, status, leaving)
    return status


def _forget(status: TrainingJobStatus) -> TrainingJobStatus:
    """A sign that has gone away was none."""
    recovery = status.recovery
    if recovery is not None and recovery.decided_at is not None:
        cleared = {"again_at": None, "save_at_step": None, "save_by": None}
        return status.model_copy(update={"recovery": recovery.model_copy(update=cleared)})
    return status.model_copy(update={"recovery": None})


def _carry_out(
    view: View, status: TrainingJobStatus, verdict: ladder.Verdict, noticed_at: datetime
) -> TrainingJobStatus:
    status = tracking.refresh(view, status)
    signal = verdict.signal
    worker = signal.worker.index if signal.worker else None
    status = attempts.end_attempt(
        view,
        status,
        cause=verdict.cause,
        rung=verdict.rung,
        node=signal.node,
        worker=worker,
        message=verdict.message,
        detected_at=noticed_at,
        healthy_at=signal.healthy_at,
    )
    status = exclusion.exclude(status, verdict.exclude, view)
    status = exclusion.suspect(view, status, verdict.suspect)
    status = incidents.decided(view, status, status.attempts[-1], verdict.exclude, verdict.suspect)
    if verdict.rung is None:
        return finish.fail(view, status, verdict)
    still_leaving = _still_leaving(view, status)
    replace = sorted({*verdict.replace, *still_leaving})
    # A status has room for so many uids only; beyond that every Pod is made anew.
    replace_all = verdict.replace_all or len(replace) > ladder.MAX_REPLACED or _is_replacing_all(status)
    recovery = Recovery(
        detected_at=noticed_at,
        decided_at=view.now,
        cause=verdict.cause,
        rung=verdict.rung,
        node=signal.node,
        worker=worker,
        message=verdict.message,
        replace=[] if replace_all else replace,
        replace_all=replace_all,
    )
    status = attempts.next_attempt(view, status)
    return status.model_copy(
        update={
            "recovery": recovery,
            "phase": Phase.RECOVERING,
            "budgets": ladder.charged(status.budgets, verdict.rung),
            "restarts": status.restarts + 1,
        }
    )


def _still_leaving(view: View, status: TrainingJobStatus) -> list[str]:
    """Pods that an earlier decision condemned and that are still there."""
    condemned = status.recovery.replace if status.recovery else []
    present = {pod.uid for pod in view.observed.pods}
    return [uid for uid in condemned if uid in present]


def _is_replacing_all(status: TrainingJobStatus) -> bool:
    return status.recovery is not None and status.recovery.replace_all
