"""No step anywhere for far longer than the phase has ever taken, and a sign that nobody is working."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from sternpost_eagle_eye.config import EagleEyePolicy, HangPolicy
from sternpost_eagle_eye.detect.base import Finding, names
from sternpost_eagle_eye.track import JobTrack, WorkerTrack
from sternpost_eagle_eye.vector import PageState, TrainingPhase

BLOCKED_SECONDS = 5.0
"""A process without processor time for so long is blocked."""
UNCORROBORATED = 3.0
"""Times the limit after which a standstill is reported without any other sign."""
SAVE_FACTOR = 2.0
"""Times the minimum during a save, which waits for storage: that varies."""

QUIET = 0.35
"""Share of the usual traffic or load that is left when nobody works."""
ODD = 0.4
"""Difference of GPU load that sets one worker apart."""

Marker = tuple[tuple[int, int | None, TrainingPhase | None], ...]


@dataclass(frozen=True)
class _Signs:
    """What speaks for or against each worker, by index."""

    stopped: frozenset[int]
    dead: frozenset[int]
    silent: frozenset[int]
    """Their pages do not answer."""
    waiting: frozenset[int]
    """All their ranks wait in a collective."""
    computing: frozenset[int]
    """Some rank answers and is in no collective."""
    blocked: frozenset[int]
    """No rank used the processor."""
    behind: frozenset[int]
    odd: frozenset[int]
    """Whose GPUs are busy while all others' are not, or the other way round."""
    quiet: bool
    """The machines do visibly less, or other, work than when the job trains."""

    workers: int

    def corroborated(self) -> bool:
        # When no page answers at all it is more likely the machine that is busy, or the trainer that is ending.
        some_silent = self.silent and len(self.silent) < self.workers
        return bool(self.stopped or self.dead or some_silent or self.waiting or self.blocked or self.quiet)


class HangDetector:
    """Learns how long each phase goes without a step; the start and unknown phases have a limit of their own."""

    def __init__(self, policy: HangPolicy, started_at: float) -> None:
        self._policy = policy
        self._progress_at = started_at
        self._marker: Marker | None = None
        self._phase: TrainingPhase = "init"
        self._longest: dict[TrainingPhase, float] = {}

    def adopt(self, policy: EagleEyePolicy) -> None:
        """From now on these thresholds count."""
        self._policy = policy.hang

    def evaluate(self, job: JobTrack, now: float) -> list[Finding]:
        """At most one finding: a hang is the job's, whoever is to blame."""
        # A launcher that does not run its ranks is a matter for the operator, and a silent worker for another detector.
        running = all(job.runs(track) for track in job.workers)
        if not running or not job.reports_steps():
            self._progress_at = now
            return []
        self._learn(job, now)
        still = now - self._progress_at
        limit, why = self._limit(job)
        if still <= limit:
            return []
        signs = _signs(job, now, self._progress_at)
        if not signs.corroborated() and still <= UNCORROBORATED * limit:
            return []
        stands = f"no step and no change of phase for {still:.0f} s in phase {self._phase} (limit {limit:.0f} s: {why})"
        return [_blame(job, signs, stands)]

    def _learn(self, job: JobTrack, now: float) -> None:
        marker: Marker = tuple(
            (number, rank.known.step, rank.known.phase)
            for track in job.workers
            for number, rank in sorted(track.ranks.items())
            if rank.known is not None
        )
        if marker != self._marker:
            if self._marker is not None:
                interval = now - self._progress_at
                self._longest[self._phase] = max(self._longest.get(self._phase, 0.0), interval)
            self._marker = marker
            self._progress_at = now
        self._phase = job.phase() or "train"

    def _limit(self, job: JobTrack) -> tuple[float, str]:
        policy, phase = self._policy, self._phase
        longest = self._longest.get(phase)
        if phase == "train":
            # The first step of an attempt belongs to its start, but no later limit should be below what it took.
            means = [
                r.known.step_sum / r.known.step_count
                for r in job.ranks()
                if r.known and r.known.step_sum and r.known.step_count
            ]
            longest = max([*means, longest or 0.0]) if means or longest is not None else None
        if phase == "init":
            return policy.init_seconds, "before the first step"
        if longest is None:
            return max(policy.init_seconds, policy.min_seconds), "the phase was not seen to its end before"
        learned = policy.factor * longest
        least = policy.min_seconds * (SAVE_FACTOR if phase == "checkpoint" else 1.0)
        if learned > least:
            return learned, f"{policy.factor:g} times the longest of {longest:.1f} s"
        return least, f"the minimum; the longest was {longest:.1f} s"


def _signs(job: JobTrack, now: float, since: float) -> _Signs:
    steps = [track.step for track in job.workers if track.step is not None]
    ahead = max(steps, default=0)

    def index_of(track: WorkerTrack) -> int:
        return track.index if track.index is not None else -1

    def having(found: list[WorkerTrack]) -> frozenset[int]:
        return frozenset(index_of(track) for track in found)

    def blocked(track: WorkerTrack) -> bool:
        moved = [rank.cpu_moved_at for rank in track.ranks.values()]
        return bool(moved) and all(at is not None and now - max(at, since) > BLOCKED_SECONDS for at in moved)

    latest = {index_of(t): [rank.latest for rank in t.ranks.values()] for t in job.workers}
    workers = [t for t in job.workers if latest[index_of(t)]]
    return _Signs(
        stopped=having([t for t in workers if any(r.process and r.process.stopped for r in latest[index_of(t)])]),
        dead=having([t for t in workers if any(r.process and not r.process.alive for r in latest[index_of(t)])]),
        silent=having([t for t in workers if any(r.page is PageState.TIMEOUT for r in latest[index_of(t)])]),
        waiting=having([t for t in workers if all(r.in_collective for r in latest[index_of(t)])]),
        computing=having([t for t in workers if any(r.in_collective is False for r in latest[index_of(t)])]),
        blocked=having([t for t in workers if blocked(t)]),
        behind=having([t for t in workers if t.step is not None and t.step < ahead]),
        odd=_odd(job),
        quiet=_quiet(job),
        workers=len(job.workers),
    )


def _blame(job: JobTrack, signs: _Signs, stands: str) -> Finding:
    total = len(job.workers)
    notes = [
        f"{len(found)} of {total} workers {what} ({names(found)})"
        for found, what in (
            (signs.waiting, "wait in a collective"),
            (signs.computing, "do not"),
            (signs.stopped, "have a stopped process"),
            (signs.dead, "have a process that is gone"),
            (signs.silent, "do not answer on their metrics page"),
            (signs.blocked, "use no processor time"),
            (signs.behind, "are behind in steps"),
            (signs.odd, "differ from all others in how busy their GPUs are"),
        )
        if found
    ]
    evidence = "; ".join([stands, *notes])
    everybody = frozenset(track.index for track in job.workers if track.index is not None)
    for culprits, witnesses, confidence in (
        (signs.stopped, everybody - signs.stopped, 0.97),
        (signs.dead, everybody - signs.dead, 0.95),
        (signs.silent, signs.waiting | signs.computing, 0.93),
        (signs.computing, signs.waiting, 0.93),
        (signs.behind, everybody - signs.behind, 0.9),
        (signs.odd, everybody - signs.odd, 0.85),
    ):
        if not culprits or total < 2:
            continue
        if len(culprits) == 1 and len(witnesses) >= max(1, (total - 1) / 2):
            worker = next(iter(culprits))
            node = next(track.member.node for track in job.workers if track.index == worker)
            return Finding(
                "hang", worker, confidence, False, f"{evidence}; worker {worker} on node {node} stands out alone"
            )
        if len(culprits) < total / 2:
            break  # several suspects by the strongest sign: naming one of them would be a guess
    return Finding(
        "hang", None, 0.75 if signs.corroborated() else 0.6, False, f"{evidence}; no single worker stands out"
    )


def _quiet(job: JobTrack) -> bool:
    if job.features is None:
        return False
    traffic, busy = job.features.fallen("traffic"), job.features.fallen("busy")
    return (traffic is not None and traffic < QUIET) or (busy is not None and busy < QUIET)


def _odd(job: JobTrack) -> frozenset[int]:
    busy = job.features.column("busy") if job.features is not None else {}
    if len(busy) < 3:
        return frozenset()
    middle = median(busy.values())
    odd = frozenset(worker for worker, value in busy.items() if abs(value - middle) > ODD)
    near = sum(1 for value in busy.values() if abs(value - middle) < ODD / 2)
    return odd if len(odd) + near == len(busy) else frozenset()
