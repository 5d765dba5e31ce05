"""Input comes too slowly: workers take longer for their steps, and their machines are idle meanwhile. Blames no node."""

from __future__ import annotations

from statistics import median

from sternpost_eagle_eye.config import EagleEyePolicy, SlowPolicy
from sternpost_eagle_eye.detect.base import Finding, names
from sternpost_eagle_eye.features import BLAMING
from sternpost_eagle_eye.pace import Pace
from sternpost_eagle_eye.track import JobTrack

LEVEL = 6.0
"""Of the sum of the job's pace: a short wait is no stall."""
RATIO = 1.15
MOST = 0.4
"""Share of the workers whose own time must have grown."""
LESS_BUSY = 0.92
"""GPU load against the usual."""
UNSURE_SECONDS = 75.0
"""Where waits are not measured a busy network looks alike, unless most nodes' disks are seen waiting."""
DISK_SECONDS = 4.0
EXPLAINED = 0.5
"""Share of the growth that waits for input make up, where they are reported."""
KEPT = 40
LEAST_STEPS = 3
LONG_SECONDS = 20.0
LONG_RATIO = 3.0
"""A single step that is so much longer is enough."""


class DataStallDetector:
    """Compares own time, load, and waits for input if they are reported."""

    def __init__(self, policy: SlowPolicy) -> None:
        self._scale = policy.scale()
        self._usual_wait: list[float] = []

    def adopt(self, policy: EagleEyePolicy) -> None:
        """From now on these thresholds count."""
        self._scale = policy.slow.scale()

    def evaluate(self, job: JobTrack, now: float) -> list[Finding]:
        """At most one finding."""
        pace, features = job.pace, job.features
        if pace is None or features is None:
            return []
        waits = [t.sample.data for t in job.workers if t.sample is not None and t.sample.data is not None]
        wait = median(waits) if waits else None
        if pace.job.sum[0] == 0 and wait is not None:
            self._usual_wait = [*self._usual_wait[-KEPT:], wait]
        seconds = now - float(pace.job.since[0])
        brief = pace.job.steps[0] < LEAST_STEPS and (seconds < LONG_SECONDS or pace.job_ratio < LONG_RATIO)
        if pace.job.sum[0] < LEVEL * self._scale or pace.job_ratio < RATIO or brief:
            return []
        told = f"steps take {pace.job_ratio:.2f} times as long as before for {seconds:.0f} s"
        if wait is not None and self._usual_wait:
            return self._reported(pace, wait, told)
        idle = [
            worker
            for row, worker in enumerate(pace.workers)
            if pace.apart.sum[row] >= LEVEL * self._scale
            and pace.fresh[row]
            and features.idle_alone(worker, now, float(pace.apart.since[row]))
        ]
        if idle:
            what = f"workers {names(idle)} need longer for their own part, though their machines are healthy and their GPUs idle"
            return [Finding("data-stall", None, 0.75, False, f"{told}: {what}: their input is late")]
        busy, share = features.fallen("busy"), pace.risen(1.0 + (RATIO - 1) / 2)
        busy = features.fallen("cpu_used") if busy is None else busy
        # A sick node makes all slow, too, and leaves the others' GPUs idle.
        sick = any(features.signs(worker, BLAMING, now) for worker in features.any_signs(BLAMING))
        reading = bool(features.common(("disk",), now, DISK_SECONDS))
        unsure = not pace.measured() and not reading and seconds < UNSURE_SECONDS
        if busy is None or busy > LESS_BUSY or share < MOST or sick or unsure:
            return []
        return [
            Finding(
                "data-stall",
                None,
                0.85,
                False,
                f"{told}: {share:.0%} of {len(pace.workers)} workers need longer for their own part, and are busy for "
                f"{busy:.0%} of what is usual: they wait for input",
            )
        ]

    def _reported(self, pace: Pace, wait: float, told: str) -> list[Finding]:
        usual = median(self._usual_wait)
        grown = pace.job_step * (1 - 1 / pace.job_ratio)
        if wait - usual < EXPLAINED * grown:
            return []
        return [
            Finding(
                "data-stall",
                None,
                0.93,
                False,
                f"{told}: {wait:.2f} s of a step are waits for input, usually {usual:.2f}",
            )
        ]
