"""What the memory service is told, in plain sentences; kept in the status until it is acknowledged."""

from __future__ import annotations

from collections.abc import Mapping

from sternpost_operator.recovery.actions import RecordIncident
from sternpost_operator.recovery.observed import Observed
from sternpost_operator.recovery.view import View
from sternpost_operator.resources.training_job_status import (
    MAX_UNSENT_INCIDENTS,
    AttemptRecord,
    Cause,
    Incident,
    Phase,
    Rung,
    TrainingJobStatus,
)

SENT_AT_ONCE = 10
"""Incidents told in one reconcile, the oldest first."""

_DONE = {
    Rung.RANKS: "All ranks were restarted in place; every Pod and its memory stayed.",
    Rung.PODS: "What had failed was replaced; the other Pods stayed.",
    Rung.JOB: "The whole job was restarted with new Pods.",
}


def acknowledge(status: TrainingJobStatus, observed: Observed) -> TrainingJobStatus:
    """Forget what the memory service has taken."""
    unsent = [each for each in status.unsent_incidents if each.id not in observed.acknowledged_incidents]
    if len(unsent) == len(status.unsent_incidents):
        return status
    return status.model_copy(update={"unsent_incidents": unsent})


def to_send(status: TrainingJobStatus) -> tuple[RecordIncident, ...]:
    """What is to be told now."""
    return tuple(RecordIncident(each) for each in status.unsent_incidents[:SENT_AT_ONCE])


def overflows(status: TrainingJobStatus) -> bool:
    """Whether the oldest incident has no room any more."""
    return len(status.unsent_incidents) > MAX_UNSENT_INCIDENTS


def bound(status: TrainingJobStatus) -> TrainingJobStatus:
    """Drop the oldest incidents that have no room."""
    if not overflows(status):
        return status
    return status.model_copy(update={"unsent_incidents": status.unsent_incidents[-MAX_UNSENT_INCIDENTS:]})


def add(status: TrainingJobStatus, incident: Incident) -> TrainingJobStatus:
    """Keep an incident, once."""
    if any(each.id == incident.id for each in status.unsent_incidents):
        return status
    return status.model_copy(update={"unsent_incidents": [*status.unsent_incidents, incident]})


def decided(
    view: View,
    status: TrainingJobStatus,
    record: AttemptRecord,
    excluded: Mapping[str, str],
    suspected: Mapping[str, str],
) -> TrainingJobStatus:
    """An attempt was ended, and maybe nodes were excluded or suspected."""
    of_whom = f" of worker {record.worker}" if record.worker is not None else ""
    where = f" on node {record.node}" if record.node else ""
    at_step = f" at step {record.last_step}" if record.last_step is not None else ""
    detect = f" {record.stages.detect:.1f} s after the last sign of health" if record.stages.detect is not None else ""
    sentences = [
        f"{_job(view)}, attempt {record.number}, ended with {record.cause}{of_whom}{where}{at_step}: {record.message}.",
        f"It was noticed{detect} and decided upon {record.stages.decide or 0:.1f} s later.",
        _DONE[record.rung] if record.rung else "",
        *(f"Node {node} is only suspected: it stays until it is blamed again." for node in sorted(suspected)),
    ]
    text = " ".join(sentence for sentence in sentences if sentence)
    status = add(status, _incident(view, record.id or "0", str(record.cause), text, record.node, cause=record.cause))
    for node, reason in sorted(excluded.items()):
        status = exclusion(view, status, record.id or "0", node, reason, cause=record.cause)
    return status


def exclusion(
    view: View, status: TrainingJobStatus, attempt: str, node: str, reason: str, *, cause: Cause
) -> TrainingJobStatus:
    """A node was excluded; the status says so already, and for how long."""
    entry = next((each for each in status.excluded_nodes if each.node == node), None)
    if entry is None:
        return status
    seconds = (entry.until - entry.since).total_seconds()
    times = f" It has been excluded {entry.count} times by now." if entry.count > 1 else ""
    text = f"{_job(view)} left node {node} and stays away from it for {seconds:g} s: {reason}.{times}"
    incident = _incident(view, attempt, f"Excluded-{node}", text, node)
    return add(status, incident.model_copy(update={"excluded": str(cause)}))


def recovered(view: View, status: TrainingJobStatus, record: AttemptRecord) -> TrainingJobStatus:
    """The attempt after `record` has made its first step."""
    known = {
        "deciding": record.stages.decide,
        "ending the old ranks": record.stages.terminate,
        "starting the new ones": record.stages.start,
        "restoring": record.stages.restore,
        "the first step": record.stages.first_step,
    }
    parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in known.items() if seconds is not None)
    resumed = f" It resumed from step {record.resumed_step}" if record.resumed_step is not None else ""
    lost = (
        f" and lost {record.lost_steps} steps." if resumed and record.lost_steps is not None else "." if resumed else ""
    )
    total = sum(seconds for seconds in known.values() if seconds is not None)
    text = f"{_job(view)} runs again {total:.1f} s after {record.cause} of attempt {record.number}: {parts}.{resumed}{lost}"
    return add(status, _incident(view, record.id or "0", f"{record.cause}-Recovered", text, record.node))


def suspended(view: View, status: TrainingJobStatus, attempt: str) -> TrainingJobStatus:
    """The job was told to stop for a while."""
    text = f"{_job(view)} was suspended on request; its newest checkpoint is kept."
    return add(status, _incident(view, attempt or "0", "Suspended", text, None))


def finished(view: View, status: TrainingJobStatus, why: str, node: str | None = None) -> TrainingJobStatus:
    """The job has ended, for `why` (a clause)."""
    restarts = f"{status.restarts} restarts" if status.restarts != 1 else "1 restart"
    excluded = ", ".join(each.node for each in status.excluded_nodes) or "none"
    text = (
        f"{_job(view)} {'succeeded' if status.phase is Phase.SUCCEEDED else 'failed'}: {why}. "
        f"{restarts}, {status.lost_steps} steps lost; nodes excluded at the end: {excluded}."
    )
    return add(status, _incident(view, status.attempt.id or "0", str(status.phase), text, node))


def _job(view: View) -> str:
    return f"Job {view.job.metadata.namespace}/{view.job.metadata.name}"


def _incident(
    view: View, attempt: str, what: str, text: str, node: str | None, *, cause: Cause | None = None
) -> Incident:
    identity = f"{view.job.metadata.uid}-{attempt}-{what}"
    return Incident(id=identity, at=view.now, text=text, node=node, cause=str(cause) if cause else None)
