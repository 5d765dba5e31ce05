"""What worker 0 remembers of each worker in the current attempt. Pure: vectors and times go in."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from sternpost_eagle_eye.attempt import Attempt, Member
from sternpost_eagle_eye.vector import (
    ExporterVector,
    LauncherState,
    LogSign,
    LogSignature,
    PageState,
    RankVector,
    TrainingPhase,
    Vector,
)

if TYPE_CHECKING:
    from sternpost_eagle_eye.features import FeatureBoard
    from sternpost_eagle_eye.pace import Pace

WARMUP_STEPS = 5
"""Steps of a process that say nothing about the next: compilation, connections, caches."""
WARMUP_SECONDS = 3.0
KEPT_SIGNS = 32
MAX_INTERVAL = 30.0
NOTE_SECONDS = 0.25
"""Between two looks at what all workers have completed."""
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
    data: float | None = None
    communication: float | None = None


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
        return Sample(
            at,
            steps,
            compute / computes,
            step / steps,
            _mean(before.data_sum, now.data_sum, steps),
            _mean(before.communication_sum, now.communication_sum, steps),
        )


def _mean(before: float | None, now: float | None, steps: int) -> float | None:
    return (now - before) / steps if before is not None and now is not None and now >= before else None


@dataclass
class WorkerTrack:
    """One Pod of the attempt; `index` is None for a spare."""

    index: int | None
    member: Member
    heard_at: float | None = None
    heard_wall: float = 0.0
    """Unix seconds."""
    interval: float | None = None
    """Typical seconds between its vectors."""
    vector: Vector | None = None
    ranks: dict[int, RankTrack] = field(default_factory=dict)
    sample: Sample | None = None
    """The newest, after the warm-up."""
    page_at: float | None = None
    """When a trainer's page was last read."""
    missing_since: float | None = None
    """Since when vectors come without any page, though there was one."""
    lost_since: float | None = None
    """When the page of a rank was last read that is not there any more."""
    progress_at: float | None = None
    """When it last completed a step."""
    exporters: ExporterVector | None = None
    """As last known."""
    signs: deque[tuple[float, LogSign]] = field(default_factory=lambda: deque(maxlen=KEPT_SIGNS))
    """What its logs said, and when."""

    def take(self, vector: Vector, at: float, wall: float) -> Sample | None:
        """Remember the vector; the caller has checked that it is this worker's and newer. Its new steps, if there are any."""
        for sign in vector.logs:
            self.signs.append((at, sign))
        if vector.exporters is not None:
            self.exporters = vector.exporters
        elif vector.logs and not vector.ranks and vector.machine is None and vector.launcher is None:
            return None  # what a log said is no sign of life
        if self.heard_at is not None and 0 < at - self.heard_at < MAX_INTERVAL:
            gap = at - self.heard_at
            self.interval = gap if self.interval is None else 0.9 * self.interval + 0.1 * gap
        self.vector, self.heard_at, self.heard_wall = vector, at, wall
        found: list[Sample] = []
        before = self.step
        for rank in vector.ranks:
            if (
                rank.page is not PageState.OK
                and rank.rank not in self.ranks
                and self.ranks
                and vector.worker is not None
            ):
                continue  # a recording without a page does not know whose page is missing
            track = self.ranks.setdefault(rank.rank, RankTrack(rank))
            sample = track.take(rank, at)
            if sample is not None:
                found.append(sample)
        self._page(vector, at)
        after = self.step
        if after is not None and after != before:
            self.progress_at = at
        if not found:
            return None
        # The slowest rank sets the pace of its worker.
        self.sample = Sample(
            at,
            max(s.steps for s in found),
            max(s.compute for s in found),
            max(s.step for s in found),
            max((s.data for s in found if s.data is not None), default=None),
            max((s.communication for s in found if s.communication is not None), default=None),
        )
        return self.sample

    def _page(self, vector: Vector, at: float) -> None:
        there = {r.rank for r in vector.ranks if r.page not in (PageState.NONE, PageState.UNREAD)}
        lost = [r.known_at for number, r in self.ranks.items() if r.known is not None and number not in there]
        self.lost_since = min(lost, default=None)
        if any(rank.page is PageState.OK for rank in vector.ranks):
            self.page_at, self.missing_since = at, None
        elif (
            self.page_at is not None
            and self.missing_since is None
            and all(rank.page in (PageState.NONE, PageState.UNREAD) for rank in vector.ranks)
        ):
            self.missing_since = at

    def launcher_state(self, attempt: str) -> LauncherState:
        """What its launcher says of this attempt; `unknown` while it is at another one."""
        launcher = self.vector.launcher if self.vector is not None else None
        return launcher.state if launcher is not None and launcher.attempt == attempt else "unknown"

    @property
    def step(self) -> int | None:
        """The last step that all its ranks have completed."""
        if len(self.ranks) == 1:
            known_rank = next(iter(self.ranks.values())).known
            return None if known_rank is None else known_rank.step
        steps = [rank.known.step if rank.known is not None else None for rank in self.ranks.values()]
        known = [step for step in steps if step is not None]
        return min(known) if known and len(known) == len(steps) else None

    def phases(self) -> set[TrainingPhase]:
        """Of its ranks, as last known."""
        return {r.known.phase for r in self.ranks.values() if r.known is not None and r.known.phase is not None}

    def role(self) -> str | None:
        """Its position in the job's groups, where its ranks agree on one."""
        found = {rank.known.role for rank in self.ranks.values() if rank.known is not None}
        return next(iter(found)) if len(found) == 1 else None

    def waits(self) -> bool:
        """Whether all its ranks are in a collective, as last known."""
        return bool(self.ranks) and all(r.known is not None and r.known.in_collective for r in self.ranks.values())

    def sign(self, *signatures: LogSignature, since: float) -> tuple[float, LogSign] | None:
        """The first such line of its logs since then."""
        return next(((at, sign) for at, sign in self.signs if at >= since and sign.signature in signatures), None)


class JobTrack:
    """All workers of one attempt."""

    def __init__(
        self,
        attempt: Attempt,
        *,
        launchers: bool = True,
        features: FeatureBoard | None = None,
        pace: Pace | None = None,
    ) -> None:
        """`launchers`: whether vectors tell the launchers' states; a recording's do not."""
        self.features = features
        self.pace = pace
        self.progress_at = 0.0
        """When any worker last completed a step, on the judge's clock."""
        self._noted_at = -1.0
        self._taken = 0
        self._phase_of = -1
        self._phase: TrainingPhase | None = None
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
        self._taken += 1
        sample = track.take(vector, at, wall)
        if track.progress_at == at:
            self.progress_at = at
        index = track.index
        if index is not None:
            if vector.exporters is not None and self.features is not None:
                self.features.take(index, vector.exporters)
            if sample is not None and self.pace is not None:
                self.pace.add(index, track.role(), sample)
        if self.first_seen is None or not 0 <= at - self._noted_at < NOTE_SECONDS:
            self._noted_at = at
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
        if self._phase_of != self._taken:
            found = {rank.known.phase for rank in self.ranks() if rank.known is not None}
            self._phase = next((phase for phase in _PHASES if phase in found), None)
            self._phase_of = self._taken
        return self._phase

    def ranks(self) -> Iterable[RankTrack]:
        """Of all workers."""
        for track in self.workers:
            yield from track.ranks.values()

    def reports_steps(self) -> bool:
        """Whether any trainer serves step metrics."""
        return any(r.known is not None and (r.known.phase or r.known.step is not None) for r in self.ranks())

    def step_seconds(self) -> float | None:
        """The typical recent duration of a step."""
        values = [track.sample.step for track in self.workers if track.sample is not None]
        return median(values) if values else None
