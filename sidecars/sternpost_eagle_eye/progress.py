"""What worker 0 answers to `GET /v1/progress`: camelCase, times as Unix seconds. Pure."""

from __future__ import annotations

import math

from sternpost_eagle_eye.track import JobTrack, RankTrack, WorkerTrack
from sternpost_eagle_eye.vector import LauncherState, LauncherVector
from sternpost_eagle_eye.wire import Wire

STALE_LAUNCHER_SECONDS = 10.0


class RankExit(Wire):
    """The first rank of a worker that failed; -N when ended by signal N."""

    rank: int
    exit_code: int
    at: float


class WorkerReport(Wire):
    """One worker or spare, as its own sidecar last described it."""

    index: int | None = None
    pod: str
    node: str
    seen_at: float
    attempt: str = ""
    launcher: LauncherState = "unknown"
    message: str = ""
    terminated_at: float | None = None
    started_at: float | None = None
    first_failure: RankExit | None = None
    step: int | None = None
    phase: str | None = None


class RestoreReport(Wire):
    """What the trainers restored at the start of this attempt."""

    step: int
    seconds: float | None = None
    source: str = "none"
    at: float


class CheckpointReport(Wire):
    """Saves of this attempt, and the newest committed generation."""

    saves: int = 0
    blocked_seconds_sum: float = 0.0
    blocked_seconds_last: float | None = None
    committed_step: int | None = None
    committed_at: float | None = None
    problem: str | None = None
    """The first worker's whose last save, commit or fetch failed."""


class ProgressReport(Wire):
    """The whole job. Only Pods that were heard of in this attempt are in `workers`."""

    attempt: str
    attempt_number: int
    at: float
    step: int | None = None
    steps_per_second: float | None = None
    loss: float | None = None
    phase: str | None = None
    first_step: int | None = None
    first_step_at: float | None = None
    last_step_at: float | None = None
    reports_steps: bool = False
    restored: RestoreReport | None = None
    checkpoint: CheckpointReport = CheckpointReport()
    workers: tuple[WorkerReport, ...] = ()


def progress_report(job: JobTrack, now: float, wall: float) -> ProgressReport:
    """`now` on the judge's clock, `wall` in Unix seconds."""
    ranks = [rank for rank in job.ranks() if rank.known is not None]
    first_step, first_step_at = _first_step(job)
    return ProgressReport(
        attempt=job.attempt.spec.id,
        attempt_number=job.attempt.spec.number,
        at=wall,
        step=job.step,
        steps_per_second=job.steps_per_second(now),
        loss=_loss(job),
        phase=job.phase(),
        first_step=first_step,
        first_step_at=first_step_at,
        last_step_at=_last_step_at(job),
        reports_steps=job.reports_steps(),
        restored=_restored(ranks),
        checkpoint=_checkpoint(job, ranks),
        workers=tuple(_worker(track) for track in job.members.values() if track.vector is not None),
    )


def _worker(track: WorkerTrack) -> WorkerReport:
    launcher = track.vector.launcher if track.vector is not None else None
    report = WorkerReport(
        index=track.index,
        pod=track.member.pod,
        node=track.member.node,
        seen_at=track.heard_wall,
        step=track.step,
        phase=next(iter(sorted(track.phases())), None),
    )
    if launcher is None:
        return report
    return report.model_copy(
        update={
            "attempt": launcher.attempt,
            "launcher": launcher.state,
            "message": launcher.message or _stale(launcher, track.heard_wall),
            "terminated_at": launcher.terminated_at,
            "started_at": launcher.started_at,
            "first_failure": _first_failure(launcher),
        }
    )


def _stale(launcher: LauncherVector, wall: float) -> str:
    age = wall - launcher.updated_at
    if launcher.state in ("failed", "succeeded") or age <= STALE_LAUNCHER_SECONDS:
        return ""
    return f"the launcher has not updated its state for {age:.0f} s"


def _first_failure(launcher: LauncherVector) -> RankExit | None:
    failed = [
        RankExit(rank=r.rank, exit_code=r.exit_code, at=r.exited_at if r.exited_at is not None else launcher.updated_at)
        for r in launcher.ranks
        if r.exit_code
    ]
    return min(failed, key=lambda failure: failure.at, default=None)


def _loss(job: JobTrack) -> float | None:
    """Of the first rank that reports one; a loss that is no number is left to the loss detector."""
    for rank in sorted(job.ranks(), key=lambda rank: rank.latest.rank):
        if rank.known is not None and rank.known.loss is not None:
            return rank.known.loss if math.isfinite(rank.known.loss) else None
    return None


def _first_step(job: JobTrack) -> tuple[int | None, float | None]:
    """The first step that every rank of this attempt completed, and when the last of them had."""
    if job.step is None:
        return None, None
    known = [rank.known for rank in job.ranks() if rank.known is not None]
    steps = [vector.first_step for vector in known if vector.first_step is not None]
    times = [vector.first_step_at for vector in known if vector.first_step_at is not None]
    if len(steps) != len(known) or len(times) != len(known):
        return job.first_seen or (None, None)
    return max(steps), max(times)


def _last_step_at(job: JobTrack) -> float | None:
    """When the slowest rank completed the job's last step."""
    at_step = [
        rank.known.last_step_at
        for rank in job.ranks()
        if rank.known is not None and rank.known.step == job.step and rank.known.last_step_at is not None
    ]
    return max(at_step) if at_step and job.step is not None else None


def _restored(ranks: list[RankTrack]) -> RestoreReport | None:
    known = [r.known for r in ranks if r.known is not None and (r.known.restore_at or 0) > 0]
    steps = [vector.restored_step for vector in known if vector.restored_step is not None]
    if not steps:
        return None
    sources = {vector.restore_source for vector in known}
    return RestoreReport(
        step=max(0, min(steps)),
        seconds=max((v.restore_seconds for v in known if v.restore_seconds is not None), default=None),
        # One rank that had to read the storage kept all others waiting.
        source=next((source for source in ("storage", "peer", "shared-memory") if source in sources), "none"),
        at=max(vector.restore_at or 0.0 for vector in known),
    )


def _checkpoint(job: JobTrack, ranks: list[RankTrack]) -> CheckpointReport:
    known = [rank.known for rank in ranks if rank.known is not None]
    committed = [
        track.vector.checkpoint
        for track in job.members.values()
        if track.vector is not None and track.vector.checkpoint is not None
    ]
    newest = max(
        (vector for vector in committed if vector.committed_step is not None and (vector.committed_at or 0) > 0),
        key=lambda vector: vector.committed_step or 0,
        default=None,
    )
    return CheckpointReport(
        saves=max((vector.blocked_count or 0 for vector in known), default=0),
        blocked_seconds_sum=max((vector.blocked_sum or 0.0 for vector in known), default=0.0),
        blocked_seconds_last=max((r.blocked_last for r in ranks if r.blocked_last is not None), default=None),
        committed_step=newest.committed_step if newest is not None else None,
        problem=next((vector.problem for vector in committed if vector.problem), None),
        committed_at=newest.committed_at if newest is not None else None,
    )
