"""What happened between two snapshots, as lines for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sternpost_operator.local_run.snapshot import Snapshot
from sternpost_operator.resources.training_job_status import AttemptRecord, Phase, Stages, TrainingJobStatus

QUIET_CONDITIONS = frozenset({"Progressing", "Running", "Complete", "Failed", "Suspended"})
"""Conditions that say no more than the phase does."""

MAX_REASON = 120
"""Characters."""


class Level(StrEnum):
    """How it is meant."""

    INFO = "info"
    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"
    INJECTED = "injected"


@dataclass(frozen=True)
class Event:
    """One line of the timeline."""

    at: float
    """Unix seconds."""
    level: Level
    text: str


def events(before: Snapshot | None, after: Snapshot) -> list[Event]:
    """Everything that `after` tells and `before` did not, in order of time."""
    found = [
        *_injections(before, after),
        *_services(before, after),
        *_nodes(before, after),
        *_anomalies(before, after),
        *_status(before, after),
    ]
    return sorted(found, key=lambda event: event.at)


def _injections(before: Snapshot | None, after: Snapshot) -> Iterator[Event]:
    known = {each.id for each in before.injected} if before else set()
    for each in after.injected:
        if each.id not in known:
            yield Event(each.at, Level.INJECTED, f"injected: {each.what}")


def _services(before: Snapshot | None, after: Snapshot) -> Iterator[Event]:
    known = dict(before.restarted) if before else {}
    for name, count in after.restarted:
        if count > known.get(name, 0):
            yield Event(after.at, Level.WARNING, f"{name} had died and was started again")


def _nodes(before: Snapshot | None, after: Snapshot) -> Iterator[Event]:
    if after.loop is None:
        return
    known = {} if before is None or before.loop is None else {n.name: n.ready for n in before.loop.observed.nodes}
    seen = {node.name: node for node in after.loop.observed.nodes}
    for name, ready in known.items():
        if name not in seen:
            if ready:
                yield Event(after.at, Level.WARNING, f"node {name} is gone")
        elif ready and not seen[name].ready:
            yield Event(seen[name].ready_since.timestamp(), Level.WARNING, f"node {name} is not ready")
        elif not ready and seen[name].ready:
            yield Event(seen[name].ready_since.timestamp(), Level.GOOD, f"node {name} is ready again")
    fresh = sorted(name for name, node in seen.items() if name not in known and node.ready)
    if fresh:
        yield Event(after.at, Level.INFO, f"{'nodes' if len(fresh) > 1 else 'node'} ready: {', '.join(fresh)}")


def _anomalies(before: Snapshot | None, after: Snapshot) -> Iterator[Event]:
    if after.loop is None:
        return
    known = {} if before is None or before.loop is None else {a.name: a for a in before.loop.observed.anomalies}
    for anomaly in after.loop.observed.anomalies:
        spec = anomaly.spec
        old = known.get(anomaly.name)
        if old is not None and old.spec.evict == spec.evict:
            continue
        where = " ".join(
            text
            for text in (
                f"worker {spec.worker}" if spec.worker is not None else "",
                f"on {spec.node}" if spec.node else "",
            )
            if text
        )
        text = f"eagle-eye: {spec.kind}{': ' + where if where else ''} ({spec.confidence:.0%} sure): {spec.evidence}"
        yield Event(spec.last_seen.timestamp(), Level.WARNING, text)


def _status(before: Snapshot | None, after: Snapshot) -> Iterator[Event]:
    if after.loop is None:
        return
    now = after.loop.job.status
    old = before.loop.job.status if before is not None and before.loop is not None else TrainingJobStatus()
    at = after.loop.at
    yield from _recovery(old, now)
    yield from _attempt(before, after, old, now)
    yield from _marked_nodes(old, now)
    yield from _conditions(old, now, at)
    known = {record.number: record for record in old.attempts}
    for record in now.attempts:
        was = known.get(record.number)
        if record.stages.first_step is not None and (was is None or was.stages.first_step is None):
            yield Event(_time(now.attempt.first_step_at, at), Level.GOOD, recovered_line(record))
    committed = _committed(after)
    if committed is not None and _committed(before) is None:
        yield Event(at, Level.INFO, f"first checkpoint is committed: step {committed}")
    if now.phase.terminal and now.phase != old.phase:
        good = now.phase is Phase.SUCCEEDED
        yield Event(_time(now.finished_at, at), Level.GOOD if good else Level.BAD, f"job {now.phase.value.lower()}")
    elif now.phase is Phase.SUSPENDED and old.phase is not Phase.SUSPENDED:
        yield Event(at, Level.INFO, "job is suspended")


def _committed(snapshot: Snapshot | None) -> int | None:
    """Step of the newest checkpoint; the status has it only as of the last transition."""
    if snapshot is None or snapshot.loop is None:
        return None
    progress, kept = snapshot.loop.observed.last_progress, snapshot.loop.job.status.checkpoint
    reported = progress.checkpoint.committed_step if progress is not None else None
    return reported if reported is not None else (kept.last_step if kept is not None else None)


def _recovery(old: TrainingJobStatus, now: TrainingJobStatus) -> Iterator[Event]:
    recovery = now.recovery
    if recovery is None:
        return
    same = old.recovery is not None and old.recovery.detected_at == recovery.detected_at
    if not same:
        yield Event(
            recovery.detected_at.timestamp(), Level.WARNING, f"noticed: {_short(recovery.message or 'a failure')}"
        )
    if recovery.decided_at is not None and not (same and old.recovery is not None and old.recovery.decided_at):
        where = f" of worker {recovery.worker}" if recovery.worker is not None else ""
        place = f" on {recovery.node}" if recovery.node else ""
        way = {"ranks": "restart ranks in place", "pods": "replace the Pod", "jobs": "restart the whole job"}
        action = f": {way[recovery.rung.value]}" if recovery.rung else ""
        cause = recovery.cause.value if recovery.cause else "failure"
        yield Event(recovery.decided_at.timestamp(), Level.INFO, f"decided: {cause}{where}{place}{action}")


def _attempt(
    before: Snapshot | None, after: Snapshot, old: TrainingJobStatus, now: TrainingJobStatus
) -> Iterator[Event]:
    if now.attempt.number > old.attempt.number and now.attempt.number > 0:
        yield Event(_time(now.attempt.issued_at, after.at), Level.INFO, f"attempt {now.attempt.number} is issued")
    yield from _moves(before, after)
    fresh = now.attempt.number != old.attempt.number
    if now.attempt.running_at is not None and (fresh or old.attempt.running_at is None):
        yield Event(now.attempt.running_at.timestamp(), Level.INFO, f"attempt {now.attempt.number}: all ranks run")
    if now.attempt.first_step_at is not None and (fresh or old.attempt.first_step_at is None):
        restored = now.attempt.restored_step
        origin = f", resumed from step {restored}" if restored is not None else ""
        text = f"attempt {now.attempt.number}: first step{origin}"
        yield Event(now.attempt.first_step_at.timestamp(), Level.GOOD, text)


def _moves(before: Snapshot | None, after: Snapshot) -> Iterator[Event]:
    known = before.placed if before is not None else {}
    for index, (pod, node) in sorted(after.placed.items()):
        was = known.get(index)
        if was is not None and was != (pod, node):
            yield Event(after.at, Level.INFO, f"worker {index} moves from {was[1]} ({was[0]}) to {node} ({pod})")


def _marked_nodes(old: TrainingJobStatus, now: TrainingJobStatus) -> Iterator[Event]:
    excluded = {(each.node, each.since) for each in old.excluded_nodes}
    for each in now.excluded_nodes:
        if (each.node, each.since) not in excluded:
            reason = f": {_short(each.reason)}" if each.reason else ""
            yield Event(each.since.timestamp(), Level.BAD, f"node {each.node} is excluded{reason}")
    suspected = {(each.node, each.count) for each in old.suspected_nodes}
    for suspect in now.suspected_nodes:
        if (suspect.node, suspect.count) not in suspected:
            reason = f": {_short(suspect.reason)}" if suspect.reason else ""
            yield Event(suspect.last_at.timestamp(), Level.WARNING, f"node {suspect.node} is suspected{reason}")


def _conditions(old: TrainingJobStatus, now: TrainingJobStatus, at: float) -> Iterator[Event]:
    known = {each.type: (each.status, each.reason) for each in old.conditions}
    for each in now.conditions:
        changed = known.get(each.type) != (each.status, each.reason)
        quiet = each.type in QUIET_CONDITIONS and not (each.type == "Failed" and each.status == "True")
        if not changed or quiet or (each.status != "True" and each.type not in known):
            continue
        text = f"{each.type}={each.status}{' (' + each.reason + ')' if each.reason else ''}"
        message = f": {each.message}" if each.message else ""
        level = Level.BAD if each.type == "Failed" else Level.INFO
        yield Event(_time(each.last_transition_time, at), level, f"condition {text}{message}")


def recovered_line(record: AttemptRecord) -> str:
    """One recovery in a line, with the seconds of its stages."""
    lost = f", {record.lost_steps} steps lost" if record.lost_steps is not None else ""
    total = stage_total(record.stages)
    seconds = f" in {total:.1f} s" if total is not None else ""
    return f"recovered from {record.cause.value}{seconds}{lost} ({stages_line(record.stages)})"


def stages_line(stages: Stages) -> str:
    """Like `detect 0.5, decide 2.0, …`: the stages that are known, in seconds."""
    return ", ".join(f"{name} {value:.1f}" for name, value in _stage_items(stages) if value is not None)


def stage_total(stages: Stages) -> float | None:
    """Seconds of all stages together; None when none is known."""
    known = [value for _, value in _stage_items(stages) if value is not None]
    return sum(known) if known else None


def _stage_items(stages: Stages) -> list[tuple[str, float | None]]:
    return [
        ("detect", stages.detect),
        ("decide", stages.decide),
        ("terminate", stages.terminate),
        ("start", stages.start),
        ("restore", stages.restore),
        ("first step", stages.first_step),
    ]


def _short(text: str) -> str:
    """Evidence is told in full once, as eagle-eye's finding."""
    return text if len(text) <= MAX_REASON else f"{text[: MAX_REASON - 1]}…"


def _time(moment: datetime | None, otherwise: float) -> float:
    return moment.timestamp() if moment is not None else otherwise
