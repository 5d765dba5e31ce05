"""`plan(job, observed, now) -> Plan`: the whole of recovery in one pure function.

It looks only at how things are, never at what happened: an observation that was missed, repeated or late, or an operator
that was ended between any two steps, changes nothing but the time it takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sternpost_operator.recovery import (
    attempts,
    conditions,
    decision,
    exclusion,
    finish,
    headcount,
    incidents,
    pods,
    saving,
    stages,
    suspend,
    thresholds,
    tracking,
)
from sternpost_operator.recovery.actions import Action
from sternpost_operator.recovery.observed import Observed
from sternpost_operator.recovery.view import View
from sternpost_operator.resources.training_job import TrainingJob
from sternpost_operator.resources.training_job_status import Cause, Phase, TrainingJobStatus


@dataclass(frozen=True)
class Plan:
    """The status to write first, then the actions, in this order."""

    status: TrainingJobStatus
    actions: tuple[Action, ...]


def plan(job: TrainingJob, observed: Observed, now: datetime) -> Plan:
    """Decide what the job's status is and what is to be done.

    An unchanged status compares equal to `job.status`. Planning again on the same observation, with the status that came
    of it, gives that status and the same actions.
    """
    view = View(job, observed, now)
    status = incidents.acknowledge(job.status, observed)
    if job.metadata.deletion_timestamp is not None:
        return Plan(status, (*pods.delete_all(view), *incidents.to_send(status)))
    if not status.phase.terminal:
        status = _with_beginning(view, status)
        status = exclusion.expire(view, status)
        status = tracking.follow(view, status)
    status, actions = _advance(view, status)
    if not status.phase.terminal:
        status = stages.fill_pods(view, status)
        status = _with_phase(status)
        status = headcount.count(view, status)
        status = conditions.update(view, status)
    if not job.status.phase.terminal:
        status = _with_recovered(view, status)
        if tracking.is_transition(job.status, status) or tracking.is_due(view, status):
            status = tracking.refresh(view, status)
    status = incidents.bound(conditions.incidents_dropped(status, now))
    return Plan(status, (*actions, *incidents.to_send(status)))


def _advance(view: View, status: TrainingJobStatus) -> tuple[TrainingJobStatus, tuple[Action, ...]]:
    """The step that the job's state asks for."""
    if status.phase.terminal:
        return status, (*finish.clean_up(view, status), *finish.expire(view, status))
    run = view.run(status)
    if run is not None and finish.has_succeeded(view, status, run):
        status = finish.succeed(view, status)
        return status, finish.clean_up(view, status)
    if run is not None and (run.complete or finish.all_ranks_succeeded(view, status, run)):
        return status, finish.completed(view, run)
    if suspend.is_over(view, status):
        status = suspend.resume(view, status)
    if suspend.applies(view, status):
        return suspend.step(view, status)
    status = decision.decide(view, status)
    run = view.run(status)
    if status.phase.terminal:
        return status, finish.clean_up(view, status)
    status = _with_lost_nodes(view, status)
    status = _with_all_replaced(view, status)
    issued = attempts.issue_run(view, status)
    # One at a time: each is made of the Attempt as it was seen.
    changed = saving.write(view, issued.status, run) or thresholds.write(view, run)
    writes: tuple[Action, ...] = (issued.write,) if issued.write else changed
    return issued.status, (*writes, *pods.reconcile(view, issued.status, issued.assigned))


def _with_beginning(view: View, status: TrainingJobStatus) -> TrainingJobStatus:
    generation = view.job.metadata.generation
    if status.started_at is not None and status.observed_generation == generation:
        return status
    return status.model_copy(update={"started_at": status.started_at or view.now, "observed_generation": generation})


def _with_lost_nodes(view: View, status: TrainingJobStatus) -> TrainingJobStatus:
    """Exclude nodes that were lost while the next attempt waits: nothing ran there, so that it costs no budget."""
    lost = exclusion.lost_while_held(view, status)
    status = exclusion.exclude(status, lost, view)
    for node, reason in sorted(lost.items()):
        status = incidents.exclusion(view, status, status.attempt.id, node, reason, cause=Cause.NODE_LOST)
    return status


def _with_all_replaced(view: View, status: TrainingJobStatus) -> TrainingJobStatus:
    recovery = status.recovery
    if recovery is None or not recovery.replace_all or view.observed.pods:
        return status
    return status.model_copy(update={"recovery": recovery.model_copy(update={"replace_all": False})})


def _with_phase(status: TrainingJobStatus) -> TrainingJobStatus:
    phase = _phase(status)
    return status if phase is status.phase else status.model_copy(update={"phase": phase})


def _phase(status: TrainingJobStatus) -> Phase:
    recovery = status.recovery
    if status.phase is Phase.SUSPENDED:
        return Phase.SUSPENDED
    if recovery is not None and recovery.decided_at is not None:
        # A job that is on its way into suspension is in the phase that it was in.
        return status.phase if recovery.cause is Cause.SUSPENDED else Phase.RECOVERING
    if not status.attempt.assignment:
        return Phase.PENDING
    return Phase.RUNNING if status.attempt.running_at is not None else Phase.STARTING


def _with_recovered(view: View, status: TrainingJobStatus) -> TrainingJobStatus:
    """Tell of a recovery once it is complete."""
    before = view.job.status.recovery
    is_done = before is not None and before.decided_at is not None and before.rung is not None
    if not is_done or (status.recovery is not None and status.recovery.decided_at is not None):
        return status
    record = next((each for each in reversed(status.attempts) if each.rung is not None), None)
    if record is None or status.attempt.running_at is None or status.phase in (Phase.SUSPENDED, Phase.FAILED):
        return status
    return incidents.recovered(view, status, record)
