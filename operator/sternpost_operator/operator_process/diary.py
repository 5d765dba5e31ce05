"""What became of a job between two of its statuses, for people: the Events that `kubectl describe` shows. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sternpost_operator.resources.training_job_status import (
    AttemptRecord,
    Phase,
    Recovery,
    Rung,
    Stages,
    TrainingJobStatus,
)

MAX_MESSAGE = 1024
"""Of an Event's message."""

BAD_WHEN_TRUE = frozenset({"Failed", "IncidentsDropped", "CheckpointsFailing", "ProgressUnknown", "NoStepsReported"})
TOLD_OTHERWISE = frozenset({"Succeeded", "Suspended", "Failed"})
"""Conditions that say no more than the phase does, which has entries of its own."""

_WAY = {
    Rung.RANKS: "its ranks are restarted in place",
    Rung.PODS: "what failed is replaced, the other Pods stay",
    Rung.JOB: "the whole job is restarted with new Pods",
}


@dataclass(frozen=True)
class JobName:
    """Which job."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True)
class Entry:
    """Something that happened."""

    what: str
    """Tells it from everything else that happens to the job: the same entry has the same words here, whoever writes it."""
    at: datetime
    reason: str
    """In CamelCase, as Kubernetes has it."""
    message: str
    warning: bool = False

    def name(self, job: JobName) -> str:
        """Name of the Event: the same however often it is told."""
        digest = hashlib.sha256(f"{job.uid}/{self.what}".encode()).hexdigest()
        return f"{job.name}.{digest[:16]}"


def entries(before: TrainingJobStatus | None, after: TrainingJobStatus, now: datetime) -> list[Entry]:
    """What a job's status tells and the one before did not, in order of time."""
    old = before if before is not None else TrainingJobStatus()
    found = [*_attempts(old, after, now), *_conditions(old, after), *_ends(old, after, now)]
    return sorted(found, key=lambda entry: entry.at)


def _attempts(old: TrainingJobStatus, new: TrainingJobStatus, now: datetime) -> Iterator[Entry]:
    yield from _recovery(old.recovery, new.recovery, new)
    attempt = new.attempt
    if attempt.assignment and (old.attempt.id, bool(old.attempt.assignment)) != (attempt.id, True):
        count = new.workers.desired
        yield Entry(
            f"run/{attempt.id}",
            attempt.issued_at or now,
            "AttemptIssued",
            f"Attempt {attempt.number} is issued ({attempt.id}): {count} {'worker' if count == 1 else 'workers'}.",
        )
    if attempt.running_at is not None and (old.attempt.id != attempt.id or old.attempt.running_at is None):
        yield Entry(f"ranks/{attempt.id}", attempt.running_at, "RanksRunning", f"All ranks of {attempt.id} run.")
    if attempt.first_step_at is not None and (old.attempt.id != attempt.id or old.attempt.first_step_at is None):
        resumed = f", resumed from step {attempt.restored_step}" if attempt.restored_step else ""
        text = f"Attempt {attempt.number} made its first step{resumed}."
        yield Entry(f"step/{attempt.id}", attempt.first_step_at, "FirstStep", text)
    known = {record.number: record for record in old.attempts}
    for record in new.attempts:
        was = known.get(record.number)
        is_new = was is None or was.stages.first_step is None
        if record.rung is not None and record.stages.first_step is not None and is_new:
            yield Entry(f"recovered/{record.id}", attempt.first_step_at or now, "Recovered", recovered_text(record))
    excluded = {(each.node, each.since) for each in old.excluded_nodes}
    for each in new.excluded_nodes:
        if (each.node, each.since) not in excluded:
            text = (
                f"Node {each.node} gets no workers of this job until {each.until:%Y-%m-%d %H:%M:%S} UTC: {each.reason}"
            )
            yield Entry(f"excluded/{each.node}/{each.since}", each.since, "NodeExcluded", text, warning=True)
    suspected = {(each.node, each.count) for each in old.suspected_nodes}
    for suspect in new.suspected_nodes:
        if (suspect.node, suspect.count) not in suspected:
            text = f"Node {suspect.node} is suspected; blamed again, it is left: {suspect.reason}"
            yield Entry(
                f"suspected/{suspect.node}/{suspect.last_at}", suspect.last_at, "NodeSuspected", text, warning=True
            )
    ended = {each.node: each for each in old.excluded_nodes}
    for node in sorted(set(ended) - {each.node for each in new.excluded_nodes}):
        each = ended[node]
        yield Entry(
            f"readmitted/{node}/{each.since}",
            each.until,
            "NodeReadmitted",
            f"Node {node} may get workers of this job again.",
        )


def _recovery(old: Recovery | None, new: Recovery | None, status: TrainingJobStatus) -> Iterator[Entry]:
    if new is None or new.decided_at is None or new.rung is None or new.cause is None:
        return
    if old is not None and old.decided_at == new.decided_at:
        return
    record = status.attempts[-1] if status.attempts else None
    number = f"Attempt {record.number}" if record is not None else "The attempt"
    text = f"{number} ended with {new.cause}{_where(new.worker, new.node)}: {new.message}; {_WAY[new.rung]}."
    yield Entry(f"failure/{new.decided_at.isoformat()}", new.decided_at, str(new.cause), text, warning=True)


def _conditions(old: TrainingJobStatus, new: TrainingJobStatus) -> Iterator[Entry]:
    known = {each.type: each for each in old.conditions}
    for each in new.conditions:
        was = known.get(each.type)
        if each.type in TOLD_OTHERWISE or (was is not None and (was.status, was.reason) == (each.status, each.reason)):
            continue
        bad = (each.status == "True") is (each.type in BAD_WHEN_TRUE)
        if not bad and was is None:
            continue  # that it is as it should be is no news
        yield Entry(
            f"condition/{each.type}/{each.status}/{each.reason}/{each.last_transition_time.isoformat()}",
            each.last_transition_time,
            each.reason if bad and each.type not in BAD_WHEN_TRUE and each.reason else each.type,
            f"{each.type} is {each.status} ({each.reason}). {each.message}".strip(),
            warning=bad,
        )


def _ends(old: TrainingJobStatus, new: TrainingJobStatus, now: datetime) -> Iterator[Entry]:
    if new.phase is old.phase:
        return
    at = new.finished_at or now
    match new.phase:
        case Phase.SUCCEEDED:
            restarts = f"{new.restarts} restart{'' if new.restarts == 1 else 's'}"
            text = (
                f"All workers exited with 0; {restarts}, {new.lost_steps} steps lost, goodput {new.goodput.ratio:.0%}."
            )
            yield Entry("succeeded", at, "Succeeded", text)
        case Phase.FAILED:
            failed = next((each for each in new.conditions if each.type == "Failed"), None)
            text = f"{failed.reason}: {failed.message}" if failed is not None else "The job failed."
            yield Entry("failed", at, "Failed", text, warning=True)
        case Phase.SUSPENDED:
            text = "The job is suspended; its newest checkpoint is kept. Set spec.suspend to false to resume."
            yield Entry(f"suspended/{new.attempt.number}", now, "Suspended", text)
        case _ if old.phase is Phase.SUSPENDED:
            yield Entry(f"resumed/{new.attempt.number}", now, "Resumed", "The job goes on.")


def recovered_text(record: AttemptRecord) -> str:
    """One recovery in a line, with the seconds of its stages."""
    lost = f", {record.lost_steps} steps lost" if record.lost_steps is not None else ""
    resumed = f", resumed from step {record.resumed_step}" if record.resumed_step is not None else ""
    return f"Recovered from {record.cause} of attempt {record.number}{resumed}{lost} ({stages_text(record.stages)})."


def stages_text(stages: Stages) -> str:
    """Like `detect 0.5 s, decide 2.0 s, …`: the stages that are known."""
    known = stages.model_dump(exclude_none=True)
    return ", ".join(f"{name.replace('_', ' ')} {seconds:.1f} s" for name, seconds in known.items())


def _where(worker: int | None, node: str | None) -> str:
    of = f" of worker {worker}" if worker is not None else ""
    return f"{of} on node {node}" if node else of
