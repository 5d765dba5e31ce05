"""`report.json`: what a run came to, from the job's status, the checkpoint ledger and the injections. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from pydantic import ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from sternpost_operator.local_run.snapshot import Injected, LoopState
from sternpost_operator.resources.base import Model
from sternpost_operator.resources.training_job_status import AttemptRecord, Cause, Condition, ExcludedNode

MATCH_SECONDS = 900.0
"""An injection is taken for the cause of what was noticed at most so long after it."""

_CAUSES: dict[str, frozenset[Cause]] = {
    "kill": frozenset({Cause.NODE_LOST, Cause.POD_LOST, Cause.WORKER_SILENT, Cause.RANK_FAILED, Cause.START_TIMEOUT}),
    "slow": frozenset({Cause.SLOW_NODE, Cause.NODE_UNHEALTHY, Cause.HANG}),
    "hang": frozenset({Cause.HANG, Cause.RANK_FAILED, Cause.WORKER_SILENT, Cause.START_TIMEOUT}),
    "exit": frozenset({Cause.RANK_FAILED, Cause.POD_LOST}),
    "crash": frozenset({Cause.RANK_FAILED, Cause.POD_LOST, Cause.WORKER_SILENT, Cause.HANG, Cause.START_TIMEOUT}),
}


class _Lenient(Model):
    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=to_camel, populate_by_name=True)


class Spread(Model):
    """Milliseconds."""

    median: float
    max: float


class LedgerEntry(_Lenient):
    """One committed checkpoint, as the storage's ledger has it."""

    step: int
    run: int = 0
    job_uid: str = ""
    weights_hash: str | None = None
    blocked_seconds: float | None = Field(None, ge=0)
    """The longest that this save blocked any rank."""
    memcpy_floor_seconds: float | None = Field(None, ge=0)
    raw_bytes: int | None = Field(None, ge=0)
    stored_bytes: int | None = Field(None, ge=0)


class GenerationRow(_Lenient):
    """A generation in the storage."""

    step: int
    run: int = 0
    newest: bool = False
    """Whether it is what a restore would take."""


class Stored(_Lenient):
    """What `sternpost-checkpoint ls --json` says of a storage."""

    generations: list[GenerationRow] = Field(default_factory=list)
    ledger: list[LedgerEntry] = Field(default_factory=list)

    @property
    def newest(self) -> GenerationRow | None:
        """The generation that a restore would take."""
        return next((row for row in self.generations if row.newest), None)

    @property
    def final_hash(self) -> str | None:
        """Of the newest generation's weights: the same for the same weights, whoever wrote them."""
        row = self.newest
        if row is None:
            return None
        return next((each.weights_hash for each in self.ledger if (each.step, each.run) == (row.step, row.run)), None)

    def of_job(self, uid: str) -> list[LedgerEntry]:
        """What this job has committed; the storage may hold the work of an earlier one."""
        return [entry for entry in self.ledger if entry.job_uid == uid]


class ReportAttempt(Model):
    """One recovery."""

    number: int
    id: str
    cause: Cause
    rung: str | None
    node: str | None
    worker: int | None
    message: str
    detected_at: float
    injection: str | None
    """Spec of the injection that caused it."""
    stages: dict[str, float | None]
    """detect, decide, terminate, start, restore, firstStep; null where unknown."""
    detect_self: float | None
    """The operator's own figure for detect, from the last sign of health."""
    last_step: int | None
    resumed_step: int | None
    lost_steps: int | None


class ReportCheckpoint(Model):
    """Saves, and what they cost."""

    saves: int
    blocked_ms: Spread | None
    memcpy_floor_ms: float | None
    """What copying the same bytes takes at least on this machine."""
    blocked_over_floor: float | None
    ratio: float | None
    """Raw bytes over stored bytes."""
    bytes_raw: int
    bytes_stored: int


class ReportAnomaly(Model):
    """What eagle-eye found."""

    name: str
    attempt: str
    kind: str
    worker: int | None
    node: str | None
    confidence: float
    evict: bool
    evidence: str
    first_seen: float


class LossPoint(Model):
    """The loss after a step; `t` in Unix seconds."""

    t: float
    step: int
    loss: float
    attempt: str


class Report(Model):
    """The whole of it. Times are Unix seconds."""

    job: str
    uid: str
    phase: str
    steps: int | None
    final_hash: str | None
    restarts: int
    excluded_nodes: list[ExcludedNode]
    suspected_nodes: list[str]
    attempts: list[ReportAttempt]
    lost_steps: int
    goodput: float
    checkpoint: ReportCheckpoint
    started_at: float
    seconds: float
    injections: list[Injected]
    anomalies: list[ReportAnomaly]
    conditions: list[Condition]
    loss: list[LossPoint] = Field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Every field, unknown ones as null."""
        return self.model_dump(mode="json", by_alias=True)


def build(
    loop: LoopState,
    *,
    started_at: float,
    ended_at: float,
    stored: Stored | None,
    injected: Sequence[Injected],
    losses: Sequence[LossPoint] = (),
) -> Report:
    """The report; `stored` is None where the job has no checkpoints, or the storage told nothing."""
    status = loop.job.status
    causes = match_injections(status.attempts, injected)
    progress = loop.observed.last_progress
    newest = stored.newest if stored is not None else None
    steps = [status.attempt.last_step, progress.step if progress else None, newest.step if newest else None]
    return Report(
        job=loop.job.metadata.name,
        uid=loop.job.metadata.uid,
        phase=status.phase.value,
        steps=max((step for step in steps if step is not None), default=None),
        final_hash=stored.final_hash if stored else None,
        restarts=status.restarts,
        excluded_nodes=status.excluded_nodes,
        suspected_nodes=[each.node for each in status.suspected_nodes],
        attempts=[_attempt(record, causes.get(record.number)) for record in status.attempts],
        lost_steps=status.lost_steps,
        goodput=status.goodput.ratio,
        checkpoint=checkpoint(stored.of_job(loop.job.metadata.uid) if stored else []),
        started_at=started_at,
        seconds=max(0.0, ended_at - started_at),
        injections=list(injected),
        anomalies=[
            ReportAnomaly(
                name=each.name,
                attempt=each.spec.attempt,
                kind=each.spec.kind.value,
                worker=each.spec.worker,
                node=each.spec.node,
                confidence=each.spec.confidence,
                evict=each.spec.evict,
                evidence=each.spec.evidence,
                first_seen=each.spec.first_seen.timestamp(),
            )
            for each in sorted(loop.observed.anomalies, key=lambda anomaly: anomaly.spec.first_seen)
        ],
        conditions=status.conditions,
        loss=list(losses),
    )


def match_injections(records: Sequence[AttemptRecord], injected: Sequence[Injected]) -> dict[int, Injected]:
    """Which injection caused the end of which attempt, by the attempt's number.

    An injection causes at most one: the first failure after it that fits by kind and, where both are known, by node
    or worker. Among several that fit, the latest is taken.
    """
    caused: dict[int, Injected] = {}
    used: set[str] = set()
    for record in sorted(records, key=lambda each: each.number):
        fits = [each for each in injected if each.id not in used and _fits(record, each)]
        if fits:
            chosen = max(fits, key=lambda each: (_same_place(record, each), each.at))
            caused[record.number] = chosen
            used.add(chosen.id)
    return caused


def _fits(record: AttemptRecord, injected: Injected) -> bool:
    since = record.decided_at.timestamp() - injected.at
    # The first sign of a failure may be older than the injection that became its cause, the decision never.
    if not 0 <= since <= MATCH_SECONDS or record.cause not in _CAUSES.get(injected.kind, frozenset()):
        return False
    if record.node is not None and injected.node is not None:
        return record.node == injected.node
    if record.worker is not None and injected.worker is not None:
        return record.worker == injected.worker
    return True


def _same_place(record: AttemptRecord, injected: Injected) -> bool:
    return record.node is not None and record.node == injected.node


def _attempt(record: AttemptRecord, injected: Injected | None) -> ReportAttempt:
    stages = record.stages
    detected_at = record.detected_at.timestamp()
    detect = stages.detect if injected is None else max(0.0, detected_at - injected.at)
    return ReportAttempt(
        number=record.number,
        id=record.id,
        cause=record.cause,
        rung=record.rung.value if record.rung else None,
        node=record.node,
        worker=record.worker,
        message=record.message,
        detected_at=detected_at,
        injection=injected.spec if injected else None,
        stages={
            "detect": detect,
            "decide": stages.decide,
            "terminate": stages.terminate,
            "start": stages.start,
            "restore": stages.restore,
            "firstStep": stages.first_step,
        },
        detect_self=stages.detect,
        last_step=record.last_step,
        resumed_step=record.resumed_step,
        lost_steps=record.lost_steps,
    )


def checkpoint(ledger: Sequence[LedgerEntry]) -> ReportCheckpoint:
    """Figures of all saves together."""
    blocked = [entry.blocked_seconds for entry in ledger if entry.blocked_seconds is not None]
    floors = [entry.memcpy_floor_seconds for entry in ledger if entry.memcpy_floor_seconds is not None]
    median = statistics.median(blocked) * 1000 if blocked else None
    floor = statistics.median(floors) * 1000 if floors else None
    raw = sum(entry.raw_bytes or 0 for entry in ledger)
    stored = sum(entry.stored_bytes or 0 for entry in ledger)
    return ReportCheckpoint(
        saves=len(ledger),
        blocked_ms=Spread(median=median, max=max(blocked) * 1000) if median is not None else None,
        memcpy_floor_ms=floor,
        blocked_over_floor=median / floor if median is not None and floor else None,
        ratio=raw / stored if stored else None,
        bytes_raw=raw,
        bytes_stored=stored,
    )


def read_losses(lines: Sequence[bytes]) -> list[LossPoint]:
    """The points of `loss.jsonl`; torn lines are left out."""
    points = []
    for line in lines:
        try:
            points.append(LossPoint.model_validate_json(line))
        except ValidationError:
            continue
    return points
