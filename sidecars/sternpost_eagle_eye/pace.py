"""How long steps take, compared with each worker's peers and past: change points by CUSUM. Pure.

Step time cannot name a slow worker: in a synchronous job all take equally long, the healthy ones by waiting. Compute time
without that wait can. Where it is not measured (it equals step time then) only the job's own pace is known.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sternpost_eagle_eye.features import Floats, nan_median
from sternpost_eagle_eye.track import Sample

WINDOW = 3
"""Samples whose median is a worker's present: single ones are noise."""
FRESH_SECONDS = 8.0
HISTORY = 90
HISTORY_SECONDS = 2.0
"""Between two values that are kept as the past."""
MATURE = 15
"""Kept values that make a past to compare with."""
BASELINE_SECONDS = 10.0
SLACK = 0.08
"""Logarithm of a slowdown that nobody minds; the published rule verifies mean shifts of 10 %."""
JOB_SLACK = 0.06
NOISE_SLACK = 1.5
"""Times the standard deviation of the past, where that is more."""
CAP = 0.5
"""Most that a second can add: no burst, however strong, is a change."""
MOST = 24.0
HELD = 0.5
"""Share of a streak's mean below which samples do not belong to it."""
CALM_SAMPLES = 3
"""Healthy samples, one after the other, that end a streak."""
MAX_DELTA = 30.0
CLEAR = 1.0
"""Of a sum: more is no single sample's."""
QUIET_SECONDS = 300.0
"""Of one worker without stragglers, that are taken for granted before any were seen."""
START_SLACK = 0.35
"""Before there is a past: ranks of a job may be uneven by nature."""


class Cusum:
    """One-sided sums, one for each row, of logarithms above a slack."""

    def __init__(self) -> None:
        self.sum = np.zeros(0)
        self.since = np.full(0, np.inf)
        self.steps = np.zeros(0)
        self.samples = np.zeros(0)
        self.watched = 0.0
        """Seconds, over all rows."""
        self.recovered = 0.0
        """Of those, in streaks that were clear and ended by themselves."""
        self._highest = np.zeros(0)
        self._mass = np.zeros(0)
        self._calm = np.zeros(0, dtype=np.int64)

    def grow(self, rows: int) -> None:
        """Room for so many rows."""
        more = rows - len(self.sum)
        self.sum = np.concatenate([self.sum, np.zeros(more)])
        self.since = np.concatenate([self.since, np.full(more, np.inf)])
        self.steps = np.concatenate([self.steps, np.zeros(more)])
        self.samples = np.concatenate([self.samples, np.zeros(more)])
        self._mass = np.concatenate([self._mass, np.zeros(more)])
        self._highest = np.concatenate([self._highest, np.zeros(more)])
        self._calm = np.concatenate([self._calm, np.zeros(more, dtype=np.int64)])

    def add(self, window: Floats, single: Floats, slack: Floats, *, seconds: Floats, steps: Floats, at: Floats) -> None:
        """Logarithms of the ratio of each window and of its newest sample; NaN where there is nothing new."""
        fresh = ~np.isnan(window)
        gain = np.where(fresh, np.clip(window - slack, -CAP, CAP) * np.minimum(seconds, MAX_DELTA), 0.0)
        self.sum = np.clip(self.sum + gain, 0.0, MOST)
        # A change stays what it is; a straggler on its way back to normal has ended, even if some of it is left.
        usual = np.where(self.samples > 0, self._mass / np.maximum(self.samples, 1), 0.0)
        low = single <= np.maximum(slack, HELD * usual)
        self._calm = np.where(fresh, np.where(low, self._calm + 1, 0), self._calm)
        ended = (self._calm >= CALM_SAMPLES) | (self.sum <= 0)
        self._highest = np.maximum(self._highest, self.sum)
        over = ended & (self._highest >= CLEAR)
        self.watched += float(np.where(fresh, seconds, 0.0).sum())
        self.recovered += float((at - self.since)[over].sum())
        self._highest = np.where(ended, 0.0, self._highest)
        self.sum = np.where(ended, 0.0, self.sum)
        began = (self.sum > 0) & np.isinf(self.since)
        self.since = np.where(ended, np.inf, np.where(began, at - seconds, self.since))
        self.steps = np.where(ended, 0.0, self.steps + np.where(fresh, steps, 0.0))
        self._mass = np.where(ended, 0.0, self._mass + np.where(fresh, window, 0.0))
        self.samples = np.where(ended, 0.0, self.samples + fresh)


class _Past:
    """Values of a healthy time, a ring for each row: their median and spread."""

    def __init__(self) -> None:
        self._ring = np.full((0, HISTORY), np.nan)
        self._next = np.zeros(0, dtype=np.int64)
        self._kept_at = np.full(0, -np.inf)
        self.median = np.full(0, np.nan)
        self.spread = np.full(0, np.nan)
        self._at = -np.inf

    def grow(self, rows: int) -> None:
        more = rows - len(self._next)
        self._ring = np.concatenate([self._ring, np.full((more, HISTORY), np.nan)])
        self._next = np.concatenate([self._next, np.zeros(more, dtype=np.int64)])
        self._kept_at = np.concatenate([self._kept_at, np.full(more, -np.inf)])
        self.median = np.concatenate([self.median, np.full(more, np.nan)])
        self.spread = np.concatenate([self.spread, np.full(more, np.nan)])

    def keep(self, values: Floats, healthy: NDArray[np.bool_], now: float) -> None:
        due = np.flatnonzero(~np.isnan(values) & healthy & (now - self._kept_at >= HISTORY_SECONDS))
        self._ring[due, self._next[due] % HISTORY] = values[due]
        self._next[due] += 1
        self._kept_at[due] = now
        young = len(due) > 0 and int(self._next[due].min()) <= 2 * MATURE
        if now - self._at >= (HISTORY_SECONDS if young else BASELINE_SECONDS):
            self._at = now
            self.median = nan_median(self._ring, axis=1)
            self.spread = 1.4826 * nan_median(np.abs(self._ring - self.median[:, None]), axis=1)

    @property
    def mature(self) -> NDArray[np.bool_]:
        return self._next >= MATURE


class Pace:
    """All workers' steps. `add` each sample, `update` once an interval."""

    def __init__(self) -> None:
        self._rows: dict[int, int] = {}
        self.workers: list[int] = []
        """By row."""
        self._roles: list[str | None] = []
        self._ring = np.full((0, WINDOW, 2), np.nan)
        """Compute and step seconds of the last samples."""
        self._count = np.zeros(0, dtype=np.int64)
        self._at = np.full(0, -np.inf)
        self._seconds = np.zeros(0)
        self._steps = np.zeros(0)
        self._new = np.zeros(0, dtype=bool)
        self._own, self._relative, self._whole = _Past(), _Past(), _Past()
        self._whole.grow(1)
        self.apart, self.job = Cusum(), Cusum()
        """Each worker against its peers; the job against its past."""
        self.job.grow(1)
        self.compute = np.full(0, np.nan)
        self.step = np.full(0, np.nan)
        self.peers = np.full(0, np.nan)
        """Median compute time of the peers."""
        self.ratio = np.full(0, np.nan)
        """Compute time against the peers', as a multiple of what is usual for this worker."""
        self.fresh = np.zeros(0, dtype=bool)
        self.job_ratio = 1.0
        self.job_step = np.nan

    def add(self, worker: int, role: str | None, sample: Sample) -> None:
        """Steps between two vectors."""
        row = self._rows.get(worker)
        if row is None:
            row = self._rows[worker] = len(self._rows)
            self.workers.append(worker)
            self._roles.append(role)
            if row >= len(self._count):
                self._grow(max(8, 2 * row))
        self._ring[row, self._count[row] % WINDOW] = sample.compute, sample.step
        self._count[row] += 1
        self._at[row] = sample.at
        seconds = sample.steps * sample.step  # of training: an evaluation in between is none
        self._seconds[row] = self._seconds[row] + seconds if self._new[row] else seconds
        self._steps[row] = self._steps[row] + sample.steps if self._new[row] else sample.steps
        self._new[row] = True

    def update(self, now: float, *, standing: bool) -> None:
        """Compare. While the job is `standing`, in an evaluation or altogether, nothing is learnt."""
        count = len(self._rows)
        if not count:
            return
        newest = self._ring[np.arange(len(self._count)), (self._count - 1) % WINDOW]
        horizon = np.fmax(FRESH_SECONDS, 3 * np.fmax(self.job_step, newest[:, 1]))
        self.fresh = (self._at >= now - horizon) & (self._count >= WINDOW)
        new = self._new & self.fresh
        if standing:
            self._new[:] = False
        if standing or not new[:count].any() or self.fresh[:count].sum() <= count / 2:
            return
        self._new = np.zeros(len(self._new), dtype=bool)
        window = np.sort(self._ring, axis=1)[:, WINDOW // 2]
        known = self.fresh & (window[:, 0] > 0) & (window[:, 1] > 0)
        self.compute = np.where(known, window[:, 0], np.nan)
        self.step = np.where(known, window[:, 1], np.nan)
        self.peers = self._median_of_peers(self.compute, count)
        alone = np.isnan(self.peers) & self._own.mature  # nobody else: its own past has to do
        self.peers = np.where(alone, np.exp(self._own.median), self.peers)
        single = newest[:, 0]
        with np.errstate(invalid="ignore", divide="ignore"):
            relative = np.log(self.compute / self.peers)
            single_relative = np.log(np.maximum(single, 1e-9) / self.peers)
        mature = self._relative.mature
        usual = np.where(mature, self._relative.median, 0.0)
        slack = np.where(mature, np.fmax(SLACK, NOISE_SLACK * self._relative.spread), START_SLACK)
        excess = np.where(new, relative - usual, np.nan)
        self.apart.add(excess, single_relative - usual, slack, seconds=self._seconds, steps=self._steps, at=self._at)
        self.ratio = np.exp(relative - usual)
        self._update_job(now, new, newest[:, 1])
        calm = (self.apart.sum == 0) & new
        self._relative.keep(relative, calm, now)
        self._own.keep(np.log(self.compute), calm & (self.job.sum[0] == 0), now)

    def _update_job(self, now: float, new: NDArray[np.bool_], newest: Floats) -> None:
        known = new & ~np.isnan(self.step)
        if not known.any():
            return
        self.job_step = float(np.median(self.step[known]))
        level = np.array([np.log(self.job_step)])
        past = self._whole
        mature = bool(past.mature[0])
        usual = float(past.median[0]) if mature else float(level[0])
        slack = max(JOB_SLACK, NOISE_SLACK * float(past.spread[0])) if mature else START_SLACK
        self.job_ratio = float(np.exp(level[0] - usual))
        single = np.array([np.log(float(np.median(newest[known])))])
        seconds = np.array([float(np.median(self._seconds[known]))])
        steps = np.array([float(np.median(self._steps[known]))])
        self.job.add(level - usual, single - usual, np.array([slack]), seconds=seconds, steps=steps, at=np.array([now]))
        past.keep(level, self.job.sum == 0, now)

    def own_ratio(self, worker: int) -> float | None:
        """Compute time against the worker's own past."""
        row = self._rows.get(worker)
        if row is None or not self._own.mature[row] or np.isnan(self.compute[row]):
            return None
        return float(self.compute[row] / np.exp(self._own.median[row]))

    def risen(self, ratio: float) -> float:
        """Share of the workers that compute so many times as long as in their own past."""
        count = len(self._rows)
        known = self._own.mature[:count] & ~np.isnan(self.compute[:count])
        if not known.any():
            return 0.0
        return float((self.compute[:count][known] >= ratio * np.exp(self._own.median[:count][known])).mean())

    def measured(self) -> bool:
        """Whether waits for others are told from computing: compute time is less than step time somewhere."""
        count = len(self._rows)
        if not len(self.compute):
            return False
        with np.errstate(invalid="ignore"):
            return bool((self.compute[:count] < 0.985 * self.step[:count]).any())

    def knows(self, worker: int) -> bool:
        """Whether the worker was seen beside its peers for long enough to know what is usual for it."""
        row = self._rows.get(worker)
        return row is not None and bool(self._relative.mature[row])

    def risen_job(self, ratio: float) -> bool:
        """Whether steps take so many times as long as before, and not by chance."""
        return self.knows_past() and self.job_ratio >= ratio and float(self.job.sum[0]) >= CLEAR

    def unrest(self) -> float:
        """Share of the time that workers were slow and recovered by themselves, 0 to 1."""
        return min(1.0, self.apart.recovered / (self.apart.watched + QUIET_SECONDS))

    def knows_past(self) -> bool:
        """Whether the job was seen healthy for long enough to compare with."""
        return bool(self._whole.mature[0])

    def row(self, worker: int) -> int | None:
        """Where the worker's numbers are."""
        return self._rows.get(worker)

    def _median_of_peers(self, compute: Floats, count: int) -> Floats:
        peers = np.full(len(compute), np.nan)
        if not any(self._roles):
            _fill(peers, compute, np.arange(count))
            return peers
        roles = {role for role in self._roles if role is not None}
        groups = [[row for row in range(count) if self._roles[row] == role] for role in roles] if len(roles) > 1 else []
        rest = set(range(count))
        for group in groups:
            if len(group) >= 3:
                _fill(peers, compute, np.array(group))
                rest -= set(group)
        _fill(peers, compute, np.array(sorted(rest if len(rest) >= 3 or len(rest) == count else range(count))), rest)
        return peers

    def _grow(self, rows: int) -> None:
        more = rows - len(self._count)
        self._ring = np.concatenate([self._ring, np.full((more, WINDOW, 2), np.nan)])
        self._count = np.concatenate([self._count, np.zeros(more, dtype=np.int64)])
        self._at = np.concatenate([self._at, np.full(more, -np.inf)])
        self._seconds = np.concatenate([self._seconds, np.zeros(more)])
        self._steps = np.concatenate([self._steps, np.zeros(more)])
        self._new = np.concatenate([self._new, np.zeros(more, dtype=bool)])
        for each in (self._own, self._relative, self.apart):
            each.grow(rows)


def _fill(peers: Floats, compute: Floats, group: NDArray[np.int64], rows: set[int] | None = None) -> None:
    """The median of the others of `group`, for those of its rows that are in `rows`."""
    values = compute[group]
    if len(group) >= 8:  # one value does not move the median of many
        found = np.full(len(group), float(nan_median(values, axis=0)))
    else:
        others = np.where(np.eye(len(group), dtype=bool), np.nan, values[None, :])
        found = nan_median(others, axis=1)
    if rows is None or len(rows) == len(group):
        peers[group] = found
        return
    for row, value in zip(group, found, strict=True):
        if int(row) in rows:
            peers[row] = value
