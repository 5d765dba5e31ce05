"""One reconcile: observe, decide, record, act. The same for every kind of cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from sternpost_operator import refusals
from sternpost_operator.cluster.base import Cluster, ConflictError, RefusedError
from sternpost_operator.recovery import exclusion
from sternpost_operator.recovery.actions import Action, CreatePod, RecordIncident
from sternpost_operator.recovery.observed import Observed
from sternpost_operator.recovery.plan import Plan, plan
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
    Whatever is interrupted anywhere is planned again from what is then seen. Raises `InvalidJobError`.
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
    now = clock()
    planned = plan(job, observed, now)
    blamed = exclusion.newly_blamed(job.status, planned.status)
    if blamed:
        # Only a decision that blames a node is worth asking for: one that was excluded before stays out for longer.
        observed = replace(observed, node_history=await cluster.node_history(job, blamed))
        planned = plan(job, observed, now)
    status = refusals.lifted(planned.status, planned.actions, now)
    changed = status != job.status
    if changed:
        job = await cluster.write_status(job, status)
    done = await _carry_out(cluster, job, planned)
    if done.refused is not None:
        status = refusals.noted(job.status, done.refused, now)
        if status != job.status:
            job, changed = await cluster.write_status(job, status), True
    return Reconciled(job, observed, done.acted, changed, retry=bool(done.error), error=done.error)


@dataclass
class _Done:
    """What came of the actions of a plan."""

    acted: int = 0
    error: str = ""
    """Why the rest was left to the next reconcile."""
    refused: RefusedError | None = None
    """Why a Pod, or what it needs, was not made."""


async def _carry_out(cluster: Cluster, job: TrainingJob, planned: Plan) -> _Done:
    """Do all that can be done.

    A failure ends it, for what follows may rest on what failed: a new attempt must not be issued before the old Pods are
    deleted. What nothing rests on is done all the same.
    """
    done = _Done()
    for action in planned.actions:
        if done.error and not isinstance(action, RecordIncident):
            continue
        try:
            await cluster.act(job, action)
        except OSError as error:
            if not (isinstance(error, RefusedError) and isinstance(action, CreatePod)):
                _log.warning(
                    "action failed",
                    namespace=job.metadata.namespace,
                    job=job.metadata.name,
                    action=_described(action),
                    detail=str(error),
                )
            else:
                done.refused = error  # the job's condition tells it, and who was asked logged it
            if isinstance(action, RecordIncident):
                continue  # it stays in the status until it is acknowledged
            done.error = f"{_described(action)}: {error}"
            continue
        done.acted += 1
        if not isinstance(action, RecordIncident):
            _log.info("acted", namespace=job.metadata.namespace, job=job.metadata.name, action=_described(action))
    return done


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
