"""A worker that needs longer for its own part of a step than its peers do, for as long as one looks.

Step time cannot name it: in a synchronous job all workers take equally long for a step, the healthy ones by waiting. Compute
time without that wait can.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field
from statistics import median

from sternpost_eagle_eye.config import SlowPolicy
from sternpost_eagle_eye.detect.base import Finding
from sternpost_eagle_eye.track import KEPT_SAMPLES, JobTrack, Sample, WorkerTrack

WINDOW_SAMPLES = 5
"""The median of so many is compared: single seconds are noise."""
MIN_SAMPLES = 3
FRESH_SECONDS = 8.0
DIP = 0.9
"""A window below this share of the ratio is a dip; one in between neither ends nor confirms the persistence."""
MAX_DIPS = 2
"""One after the other; more end the persistence."""
EXTREME = 1.5
"""Times the ratio: slow beyond doubt even if the job was never seen healthy."""
MIN_EXCESS_SECONDS = 0.005
MIN_EXCESS_SHARE = 0.1
"""Of the step: what costs less does not matter to the job."""
ROSE = 1.1
"""The job's step time against that before, at least."""
MIN_HISTORY = 10
"""Samples of the time before that make a comparison with it."""
SETTLE_SECONDS = 5.0
"""Before the first slow window: it reaches back so far."""
MOST = 0.8
"""Share of the single samples of a streak that must be slow, too."""
FEW_PEERS = 2.0
"""Times as long where less than two peers make the comparison."""
NOISE_QUANTILE = 0.99
NOISE_MARGIN = 1.25
"""Times the logarithm of the noise's quantile: what healthy workers of this job show now and then blames nobody."""
NOISE_KEPT = 4000
NOISE_ENOUGH = 60
"""Windows of healthy workers that make a picture of the noise."""


@dataclass(frozen=True)
class _Window:
    """A worker's present state."""

    track: WorkerTrack
    newest: Sample
    compute: float
    step: float


@dataclass
class _Streak:
    """A worker's uninterrupted run of slow windows."""

    since: float
    until: float
    steps: int
    previous: float
    """Of the newest sample that has been counted."""
    last_ratio: float
    ratios: list[float] = field(default_factory=list)
    """Of the windows: noise after all, if the streak ends by itself."""
    samples: int = 0
    slow_samples: int = 0
    low: int = 0
    """Dips, one after the other."""

    @property
    def seconds(self) -> float:
        return self.until - self.since

    def extend(self, window: _Window, ratio: float, *, slow: bool) -> None:
        """One more window; `slow`: whether its newest sample is, too. Without a new sample nothing is confirmed."""
        if window.newest.at <= self.previous:
            return
        self.last_ratio = ratio
        self.steps += window.newest.steps
        self.until = self.previous = window.newest.at
        self.samples += 1
        self.slow_samples += slow
        if len(self.ratios) < KEPT_SAMPLES:
            self.ratios.append(ratio)


class SlowDetector:
    """Keeps a streak for each worker against its peers, and one for the job against its own past."""

    def __init__(self, policy: SlowPolicy) -> None:
        self._policy = policy
        self._streaks: dict[int, _Streak] = {}
        self._job: _Streak | None = None
        self._noise: deque[float] = deque(maxlen=NOISE_KEPT)
        """Ratios of windows in which a worker was healthy, or was slow for a moment only."""

    def evaluate(self, job: JobTrack, now: float) -> list[Finding]:
        """One finding for each slow worker, or one without a worker when more than half are slow."""
        windows = self._windows(job, now)
        if not windows or len(windows) <= len(job.workers) / 2:
            return []  # evaluating, saving, or standing: streaks neither grow nor end
        ordered = sorted(window.compute for window in windows.values())
        for index, window in windows.items():
            peers = _median_without(ordered, window.compute) if len(windows) > 1 else None
            self._follow(index, window, peers)
        for index in [index for index in self._streaks if index not in windows]:
            self._noise.extend(self._streaks.pop(index).ratios)
        risen = [index for index, window in windows.items() if self._risen(window) >= self._policy.ratio]
        whole = self._follow_job(windows, risen)
        if whole is not None:
            extreme = self._policy.ratio * EXTREME
            clear = {i for i, s in self._streaks.items() if s.last_ratio >= extreme} if len(windows) >= 3 else set()
            if not clear:
                return [whole] if self._lasted(self._job) else []
            return [f for i in clear if (f := self._judge(i, windows[i], windows)) is not None]
        slow = [index for index, streak in self._streaks.items() if self._beyond_noise(streak, len(windows) - 1)]
        return [f for index in slow if (f := self._judge(index, windows[index], windows)) is not None]

    def _windows(self, job: JobTrack, now: float) -> dict[int, _Window]:
        horizon = max(FRESH_SECONDS, 3 * (job.step_seconds() or 0.0))
        found: dict[int, _Window] = {}
        for track in job.workers:
            if not track.samples or track.index is None or track.samples[-1].at < now - horizon:
                continue
            recent = track.recent(WINDOW_SAMPLES, now - WINDOW_SAMPLES * horizon)
            if len(recent) >= MIN_SAMPLES:
                found[track.index] = _Window(
                    track, recent[0], median(s.compute for s in recent), median(s.step for s in recent)
                )
        return found

    def _follow(self, index: int, window: _Window, peers: float | None) -> None:
        """One more look at a worker; alone, it is compared with its own past."""
        ratio = window.compute / peers if peers else self._risen(window)
        base = peers if peers is not None else window.compute / max(ratio, 1e-9)
        excess = window.compute - base
        if excess < max(MIN_EXCESS_SECONDS, MIN_EXCESS_SHARE * window.step):
            ratio = min(ratio, 1.0)
        streak = self._streaks.get(index)
        if streak is None and ratio >= self._policy.ratio:
            at = window.newest.at
            streak = self._streaks[index] = _Streak(at, at, 0, at, ratio)
        if streak is None:
            self._noise.append(ratio)
        else:
            streak.extend(window, ratio, slow=window.newest.compute >= self._policy.ratio * base)
            streak.low = streak.low + 1 if ratio < self._policy.ratio * DIP else 0
            if streak.low > MAX_DIPS:
                self._noise.extend(self._streaks.pop(index).ratios)

    def _follow_job(self, windows: dict[int, _Window], risen: list[int]) -> Finding | None:
        if len(risen) <= len(windows) / 2 or len(windows) < 2:
            self._job = None
            return None
        first = windows[risen[0]]
        ratio = median(self._risen(windows[index]) for index in risen)
        if self._job is None:
            self._job = _Streak(first.newest.at, first.newest.at, 0, first.newest.at, ratio)
        else:
            self._job.extend(first, ratio, slow=True)
        return Finding(
            "slow",
            None,
            0.5,
            False,
            f"{len(risen)} of {len(windows)} workers compute {ratio:.2f} times as long as before for "
            f"{self._job.seconds:.0f} s: more than half, so that the job and no node is to blame",
        )

    def _lasted(self, streak: _Streak | None, times: float = 1.0) -> bool:
        return (
            streak is not None
            and streak.seconds >= times * self._policy.seconds
            and streak.steps >= self._policy.min_steps
        )

    def _beyond_noise(self, streak: _Streak, peers: int) -> bool:
        """Whether healthy workers of this very job never look like that."""
        if not self._lasted(streak, FEW_PEERS if peers < 2 else 1.0) or streak.slow_samples < MOST * streak.samples:
            return False
        if len(self._noise) < NOISE_ENOUGH:
            return True
        usual = sorted(self._noise)[int(NOISE_QUANTILE * (len(self._noise) - 1))]
        # Noise does not last: the longer a streak, the less it has to stand out.
        margin = NOISE_MARGIN * min(1.0, 2 * self._policy.seconds / max(streak.seconds, 1e-9))
        return math.log(max(median(streak.ratios), 1e-9)) >= margin * math.log(max(usual, 1.0))

    def _risen(self, window: _Window) -> float:
        """Compute time against the worker's own before the last `seconds`; 0 if there is none to compare with."""
        history = window.track.before(window.newest.at - self._policy.seconds - SETTLE_SECONDS)
        if len(history) < MIN_HISTORY:
            return 0.0
        return window.compute / max(median(s.compute for s in history), 1e-9)

    def _judge(self, index: int, window: _Window, windows: dict[int, _Window]) -> Finding | None:
        streak = self._streaks.get(index)
        if streak is None or not self._beyond_noise(streak, len(windows) - 1):
            return None
        ratio, policy = streak.last_ratio, self._policy
        history = window.track.before(streak.since - SETTLE_SECONDS)
        enough = len(history) >= MIN_HISTORY
        step_before = median(s.step for s in history) if enough else None
        own_before = median(s.compute for s in history) if enough else None
        rose = step_before is not None and window.step >= ROSE * step_before
        own_rose = own_before is not None and window.compute >= policy.ratio * own_before
        if len(windows) == 1:
            evict, why = False, "there is no peer to compare with"
        elif len(windows) == 2:
            evict, why = own_rose, "with one peer only, its own past must agree"
        else:
            evict, why = rose or ratio >= EXTREME * policy.ratio, "the job was never seen faster"
        peers = [w.compute for i, w in windows.items() if i != index]
        waits = [w.step - w.compute for i, w in windows.items() if i != index]
        parts = [f"compute {_milliseconds(window.compute)}"]
        if peers:
            parts.append(
                f"against a median of {_milliseconds(median(peers))} of {len(peers)} peers ({ratio:.2f} times) "
                f"for {streak.seconds:.0f} s and {streak.steps} steps; the peers wait {_milliseconds(median(waits))} a step"
            )
        else:
            parts.append(f"for {streak.seconds:.0f} s and {streak.steps} steps")
        if own_before is not None and step_before is not None:
            parts.append(
                f"; before, it took {_milliseconds(own_before)} of {_milliseconds(step_before)} a step, now of "
                f"{_milliseconds(window.step)}"
            )
        if not evict:
            parts.append(f"; only suspected: {why}")
        confidence = min(0.99, 0.9 + 0.03 * (ratio / policy.ratio - 1)) if evict else 0.6
        return Finding("slow", index, confidence, evict, " ".join(parts).replace(" ;", ";"))


def _median_without(ordered: list[float], value: float) -> float:
    """The median of a sorted list of two or more without one occurrence of `value`, which it holds."""
    at = bisect_left(ordered, value)
    count = len(ordered) - 1

    def item(position: int) -> float:
        return ordered[position if position < at else position + 1]

    return item(count // 2) if count % 2 else (item(count // 2 - 1) + item(count // 2)) / 2


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
