"""What worker 0 remembers of each worker in the current attempt. Pure: vectors and times go in."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median

from sternpost_eagle_eye.attempt import Attempt, Member
from sternpost_eagle_eye.vector import LauncherState, PageState, RankVector, TrainingPhase, Vector

WARMUP_STEPS = 5
"""Steps of a process that say nothing about the next: compilation, connections, caches."""
WARMUP_SECONDS = 3.0
KEPT_SAMPLES = 120
KEPT_PREFIX = 30
SPEED_SECONDS = 30.0
IDLE_CPU_SECONDS = 0.025
"""Between two vectors, at most, in a process that does nothing."""
_PHASES: tuple[TrainingPhase, ...] = ("checkpoint", "eval", "init", "train")


@dataclass(frozen=True)
class Sample:
    """Steps between two vectors: how many, and the mean seconds of one."""

    at: float
    steps: int
    compute: float
    step: float


@dataclass
class RankTrack:
    """One rank: its latest vector, and the latest one with a page."""

    latest: RankVector
    known: RankVector | None = None
    known_at: float = 0.0
    counted_at: float | None = None
    """When it had completed its first step."""
    blocked_last: float | None = None
    """Seconds of the newest checkpoint save."""
    cpu_seconds: float | None = None
    cpu_moved_at: float | None = None
    """When its processes last used the processor."""

    def take(self, vector: RankVector, at: float) -> Sample | None:
        """The steps since the page before; None for none, in the warm-up, and when counters went back."""
        self.latest = vector
        if vector.process is not None:
            # Serving the metrics page costs a blocked trainer a few clock ticks, too.
            if self.cpu_seconds is None or abs(vector.process.cpu_seconds - self.cpu_seconds) > IDLE_CPU_SECONDS:
                self.cpu_moved_at = at
            self.cpu_seconds = vector.process.cpu_seconds
        if vector.page is not PageState.OK:
            return None
        before, before_at = self.known, self.known_at
        self.known, self.known_at = vector, at
        if vector.step_count and self.counted_at is None:
            self.counted_at = at
        if before is None:
            return None
        self._blocked(before, vector)
        return self._sample(before, before_at, vector, at)

    def _blocked(self, before: RankVector, now: RankVector) -> None:
        if now.blocked_count is None or now.blocked_sum is None:
            return
        saves = now.blocked_count - (before.blocked_count or 0)
        seconds = now.blocked_sum - (before.blocked_sum or 0.0)
        if saves > 0 and seconds >= 0:
            self.blocked_last = seconds / saves

    def _sample(self, before: RankVector, before_at: float, now: RankVector, at: float) -> Sample | None:
        counts = (before.step_count, now.step_count, before.compute_count, now.compute_count)
        sums = (before.step_sum, now.step_sum, before.compute_sum, now.compute_sum)
        if any(value is None for value in counts) or any(value is None for value in sums):
            return None
        steps_before, steps_now, computes_before, computes_now = (value or 0 for value in counts)
        step_before, step_now, compute_before, compute_now = (value or 0.0 for value in sums)
        steps, computes = steps_now - steps_before, computes_now - computes_before
        step, compute = step_now - step_before, compute_now - compute_before
        if steps <= 0 or computes <= 0 or step < 0 or compute < 0:
            return None
        if steps_before < WARMUP_STEPS or self.counted_at is None or before_at - self.counted_at < WARMUP_SECONDS:
            return None
        return Sample(at, steps, compute / computes, step / steps)


@dataclass
class WorkerTrack:
    """One Pod of the attempt; `index` is None for a spare."""

    index: int | None
    member: Member
    heard_at: float | None = None
    heard_wall: float = 0.0
    """Unix seconds."""
    vector: Vector | None = None
    ranks: dict[int, RankTrack] = field(default_factory=dict)
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=KEPT_SAMPLES))
    prefix: list[Sample] = field(default_factory=list)
    """The first samples after the warm-up."""

    def take(self, vector: Vector, at: float, wall: float) -> None:
        """Remember the vector; the caller has checked that it is this worker's and newer."""
        self.vector, self.heard_at, self.heard_wall = vector, at, wall
        found: list[Sample] = []
        for rank in vector.ranks:
            track = self.ranks.setdefault(rank.rank, RankTrack(rank))
            sample = track.take(rank, at)
            if sample is not None:
                found.append(sample)
        if found:
            # The slowest rank sets the pace of its worker.
            whole = Sample(at, max(s.steps for s in found), max(s.compute for s in found), max(s.step for s in found))
            self.samples.append(whole)
            if len(self.prefix) < KEPT_PREFIX:
                self.prefix.append(whole)

    def launcher_state(self, attempt: str) -> LauncherState:
        """What its launcher says of this attempt; `unknown` while it is at another one."""
        launcher = self.vector.launcher if self.vector is not None else None
        return launcher.state if launcher is not None and launcher.attempt == attempt else "unknown"

    @property
    def step(self) -> int | None:
        """The last step that all its ranks have completed."""
        steps = [rank.known.step if rank.known is not None else None for rank in self.ranks.values()]
        known = [step for step in steps if step is not None]
        return min(known) if known and len(known) == len(steps) else None

    def phases(self) -> set[TrainingPhase]:
        """Of its ranks, as last known."""
        return {r.known.phase for r in self.ranks.values() if r.known is not None and r.known.phase is not None}

    def recent(self, count: int, since: float) -> list[Sample]:
        """At most `count` samples, none older than `since`."""
        newest: list[Sample] = []
        for sample in reversed(self.samples):
            if sample.at < since or len(newest) == count:
                break
            newest.append(sample)
        return newest

    def before(self, at: float) -> list[Sample]:
        """Kept samples older than `at`, the first ones of the attempt among them."""
        kept = [sample for sample in self.samples if sample.at < at]
        oldest = kept[0].at if kept else at
        return [sample for sample in self.prefix if sample.at < min(at, oldest)] + kept


class JobTrack:
    """All workers of one attempt."""

    def __init__(self, attempt: Attempt, *, launchers: bool = True) -> None:
        """`launchers`: whether vectors tell the launchers' states; a recording's do not."""
        self.attempt = attempt
        self._launchers = launchers
        self.members = {member.uid: WorkerTrack(index, member) for index, member in attempt.members()}
        self.workers = sorted(
            (track for track in self.members.values() if track.index is not None), key=lambda track: track.index or 0
        )
        self.by_index = {track.index: track for track in self.workers if track.index is not None}
        self._speed: deque[tuple[float, int]] = deque(maxlen=256)
        self.first_seen: tuple[int, float] | None = None
        """The first step seen that all workers have completed, and when (Unix seconds)."""

    def renew(self, attempt: Attempt) -> None:
        """The same run with other spares: what is known of those that stay is kept."""
        self.attempt = attempt
        self.members = {
            member.uid: self.members.get(member.uid) or WorkerTrack(index, member)
            for index, member in attempt.members()
        }

    def take(self, vector: Vector, at: float, wall: float) -> str | None:
        """Remember it; otherwise the reason why it does not count. `at` is on the judge's clock, `wall` Unix seconds."""
        if vector.attempt != self.attempt.spec.id:
            return f"attempt {vector.attempt} is not the current one, {self.attempt.spec.id}"
        track = self.members.get(vector.pod_uid)
        if track is None:
            return f"no Pod of attempt {self.attempt.spec.id} has uid {vector.pod_uid}"
        before = track.vector
        if before is not None and before.boot == vector.boot and before.sequence >= vector.sequence:
            return f"sequence {vector.sequence} came after {before.sequence}"
        self.take_of(track, vector, at, wall)
        return None

    def take_of(self, track: WorkerTrack, vector: Vector, at: float, wall: float) -> None:
        """Remember a vector that is known to be the worker's."""
        track.take(vector, at, wall)
        self._note_step(at, wall)

    def admit(self, index: int, member: Member) -> None:
        """A worker that nobody announced: in a recording, whoever speaks takes part."""
        track = WorkerTrack(index, member)
        self.members[member.uid] = self.by_index[index] = track
        self.workers = sorted(self.by_index.values(), key=lambda each: each.index or 0)

    def runs(self, track: WorkerTrack) -> bool:
        """Whether its ranks run, as far as its launcher says; without launchers they do."""
        return not self._launchers or track.launcher_state(self.attempt.spec.id) == "running"

    def _note_step(self, at: float, wall: float) -> None:
        step = self.step
        if step is not None and self.first_seen is None and step > self._restored_step():
            self.first_seen = step, wall
        if step is not None and (not self._speed or step > self._speed[-1][1]):
            self._speed.append((at, step))

    def _restored_step(self) -> int:
        """A trainer may say that it is at the step it restored; that one was not completed in this attempt."""
        known = [
            r.known.restored_step for r in self.ranks() if r.known is not None and r.known.restored_step is not None
        ]
        return max(known, default=-1)

    @property
    def step(self) -> int | None:
        """The last step that all workers have completed."""
        steps = [track.step for track in self.workers]
        known = [step for step in steps if step is not None]
        return min(known) if known and len(known) == len(steps) else None

    def steps_per_second(self, now: float) -> float | None:
        """Over the last half minute; None before there are two points in time."""
        if len(self._speed) < 2:
            return None
        newest = self._speed[-1]
        since = now - SPEED_SECONDS
        start = next((point for point in self._speed if point[0] >= since), newest)
        if start is newest:  # slower than a step in half a minute
            start = self._speed[-2]
        return (newest[1] - start[1]) / max(now - start[0], newest[0] - start[0], 1e-3)

    def phase(self) -> TrainingPhase | None:
        """One rank that evaluates or saves keeps all others waiting: its phase is the job's."""
        found = {phase for track in self.workers for phase in track.phases()}
        return next((phase for phase in _PHASES if phase in found), None)

    def ranks(self) -> Iterable[RankTrack]:
        """Of all workers."""
        for track in self.workers:
            yield from track.ranks.values()

    def reports_steps(self) -> bool:
        """Whether any trainer serves step metrics."""
        return any(r.known is not None and (r.known.phase or r.known.step is not None) for r in self.ranks())

    def step_seconds(self) -> float | None:
        """The typical recent duration of a step."""
        values = [track.samples[-1].step for track in self.workers if track.samples]
        return median(values) if values else None
