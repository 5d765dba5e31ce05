"""One reconcile: observe, decide, record, act. The same for every kind of cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from sternpost_operator.cluster.base import Cluster, ConflictError
from sternpost_operator.recovery.actions import Action, RecordIncident
from sternpost_operator.recovery.observed import Observed
from sternpost_operator.recovery.plan import plan
from sternpost_operator.resources.progress import ProgressReport
from sternpost_operator.resources.training_job import TrainingJob

_log = structlog.get_logger("sternpost.reconcile")

CONFLICT_LIMIT = 5
"""Conflicts in a row before the rest is left to the next reconcile."""


@dataclass(frozen=True)
class Reconciled:
    """What came of one reconcile."""

    job: TrainingJob | None
    """The job as it is stored now; None when it is gone."""
    observed: Observed | None = None
    acted: int = 0
    """Actions that were done."""
    changed: bool = False
    """Whether the status was written."""
    retry: bool = False
    """Something did not answer: reconcile again, after a pause."""
    error: str = ""
    """What did not answer."""


async def reconcile(
    cluster: Cluster, name: str, clock: Callable[[], datetime], *, last_progress: ProgressReport | None = None
) -> Reconciled:
    """Bring one job one step on. `last_progress` is `observed.last_progress` of the reconcile before, if there was one.

    A cluster that does not answer is no error of the job: it is logged and told to the caller, who tries again later.
    Whatever is interrupted anywhere is planned again from what is then seen.
    """
    for _ in range(CONFLICT_LIMIT):
        try:
            return await _once(cluster, name, clock, last_progress)
        except ConflictError as error:
            _log.info("conflict", job=name, detail=str(error))
        except OSError as error:
            _log.warning("no answer", job=name, detail=str(error))
            return Reconciled(job=None, retry=True, error=str(error) or type(error).__name__)
    return Reconciled(job=None, retry=True, error=f"the status was changed by others {CONFLICT_LIMIT} times in a row")


async def _once(
    cluster: Cluster, name: str, clock: Callable[[], datetime], last_progress: ProgressReport | None
) -> Reconciled:
    job = await cluster.get_job(name)
    if job is None:
        return Reconciled(job=None)
    observed = await cluster.observe(job)
    # Worker 0 takes its last figures with it when it goes: what was lost with it is only known from here.
    observed = replace(observed, last_progress=observed.progress or observed.last_progress or last_progress)
    planned = plan(job, observed, clock())
    changed = planned.status != job.status
    if changed:
        job = await cluster.write_status(job, planned.status)
    acted = 0
    for action in planned.actions:
        try:
            await cluster.act(job, action)
        except OSError as error:
            _log.warning("action failed", job=name, action=_described(action), detail=str(error))
            if isinstance(action, RecordIncident):
                continue  # nothing waits for it, and it stays in the status until it is acknowledged
            # What follows may rest on it: a new attempt must not be issued before the old Pods are deleted.
            return Reconciled(job, observed, acted, changed, retry=True, error=f"{_described(action)}: {error}")
        acted += 1
        if not isinstance(action, RecordIncident):
            _log.info("acted", job=name, action=_described(action))
    return Reconciled(job, observed, acted, changed)


def _described(action: Action) -> str:
    if isinstance(action, RecordIncident):
        return f"RecordIncident({action.incident.id})"
    name = type(action).__name__
    match name:
        case "WriteAttempt":
            spec = action.spec  # type: ignore[union-attr]
            return f"WriteAttempt({spec.id}, {spec.action})"
        case _:
            return repr(action)
