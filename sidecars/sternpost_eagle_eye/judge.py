"""Fuses what the detectors find in one attempt into what worker 0 says. Pure: vectors and times go in, findings come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sternpost_eagle_eye.attempt import Attempt
from sternpost_eagle_eye.config import EagleEyePolicy
from sternpost_eagle_eye.detect.base import Adaptable, Detector, Finding, Kind
from sternpost_eagle_eye.detect.standstill import standing
from sternpost_eagle_eye.fusion import Fusion
from sternpost_eagle_eye.track import JobTrack
from sternpost_eagle_eye.vector import Vector

HOLD_SECONDS = 10.0
"""A finding that has not been repeated for so long is over; until then its highest confidence stands."""
EVICTIONS_SHARE = 8
"""At most one worker in so many, and at least one, may be evicted in one attempt."""
MAX_GAP_SECONDS = 3.0
MAX_GAP_INTERVALS = 3

Key = tuple[Kind, int | None]


@dataclass
class _Standing:
    finding: Finding
    seen_at: float


class Judge:
    """One attempt's judge. The next attempt gets a new one: nothing from before counts."""

    def __init__(self, attempt: Attempt, policy: EagleEyePolicy, now: float, *, launchers: bool = True) -> None:
        """`now`: monotonic seconds, as in all later calls. `launchers`: whether vectors tell the launchers' states."""
        # Lazy: only the sidecar that judges needs numpy.
        from sternpost_eagle_eye.features import FeatureBoard  # noqa: PLC0415
        from sternpost_eagle_eye.pace import Pace  # noqa: PLC0415

        self._features, self._pace = FeatureBoard(), Pace()
        self.job = JobTrack(attempt, launchers=launchers, features=self._features, pace=self._pace)
        self._policy = policy
        self._last_now = now
        self._clock = 0.0
        self._fusion = Fusion()
        self._standing: dict[Key, _Standing] = {}
        self._evicting: set[int] = set()
        self._detectors: Sequence[Detector] = _detectors(policy)

    def adopt(self, policy: EagleEyePolicy) -> None:
        """Thresholds were changed while the job runs: what was learnt stays, and these count."""
        if policy == self._policy:
            return
        self._policy = policy
        for detector in self._detectors:
            if isinstance(detector, Adaptable):
                detector.adopt(policy)

    def clock(self, now: float) -> float:
        """Seconds of this attempt that the judge was awake. When it was itself stopped or starved the workers were not silent."""
        max_gap = max(MAX_GAP_SECONDS, MAX_GAP_INTERVALS * self._policy.interval_seconds)
        self._clock += min(max(0.0, now - self._last_now), max_gap)
        self._last_now = max(now, self._last_now)
        return self._clock

    def take(self, vector: Vector, now: float, wall: float) -> str | None:
        """A vector that was received; otherwise the reason why it does not count."""
        return self.job.take(vector, self.clock(now), wall)

    def take_recorded(self, vector: Vector, now: float, wall: float) -> None:
        """A vector of a recording, which says itself whose it is; the worker has been admitted."""
        if vector.worker is not None:
            self.job.take_of(self.job.by_index[vector.worker], vector, self.clock(now), wall)

    def tick(self, now: float) -> list[Finding]:
        """To be called once an interval: all that is wrong now."""
        at = self.clock(now)
        if not self._policy.detect:
            return []
        self._look(at)
        found = [finding for detector in self._detectors for finding in detector.evaluate(self.job, at)]
        told = self._fusion.told(found, at, self.job.progress_at)
        return self._budgeted([self._held(finding, at) for finding in told])

    def _look(self, at: float) -> None:
        """Bring up to date what several detectors compare."""
        job = self.job
        still = standing(job, at)
        training = job.phase() in ("train", None)
        self._pace.update(at, standing=not training)
        healthy = training and not still and self._pace.job.sum[0] == 0
        self._features.update(at, healthy=healthy or not job.reports_steps())

    def _held(self, finding: Finding, at: float) -> Finding:
        """A finding does not waver: while it stands its confidence and verdict only rise."""
        key = (finding.kind, finding.worker)
        standing = self._standing.get(key)
        if standing is not None and at - standing.seen_at <= HOLD_SECONDS:
            before = standing.finding
            finding = replace(
                finding,
                confidence=max(before.confidence, finding.confidence),
                evict=before.evict or finding.evict,
            )
        self._standing[key] = _Standing(finding, at)
        return finding

    def _budgeted(self, found: list[Finding]) -> list[Finding]:
        """The circuit breaker: when many nodes look bad, it is rarely the nodes."""
        workers = len(self.job.workers)
        blamed = {finding.worker for finding in found if finding.evict}
        if workers > 1 and len(blamed) > workers / 2:
            note = f" (nobody is evicted: {len(blamed)} of {workers} workers look bad at once)"
            return [
                replace(f, evict=False, confidence=min(f.confidence, 0.5), evidence=f.evidence + note) if f.evict else f
                for f in found
            ]
        budget = max(1, workers // EVICTIONS_SHARE)
        kept: list[Finding] = []
        for finding in sorted(found, key=lambda f: (-f.confidence, f.kind, -1 if f.worker is None else f.worker)):
            if finding.evict and finding.worker is not None and finding.worker not in self._evicting:
                if len(self._evicting) >= budget:
                    note = f" (not evicted: the budget of {budget} in this attempt is used)"
                    kept.append(replace(finding, evict=False, evidence=finding.evidence + note))
                    continue
                self._evicting.add(finding.worker)
            kept.append(finding)
        return kept


def _detectors(policy: EagleEyePolicy) -> tuple[Detector, ...]:
    """All of them. Imported here for the sake of sidecars that do not judge."""
    from sternpost_eagle_eye.detect.data_stall import DataStallDetector  # noqa: PLC0415
    from sternpost_eagle_eye.detect.hang import HangDetector  # noqa: PLC0415
    from sternpost_eagle_eye.detect.hardware import HardwareDetector  # noqa: PLC0415
    from sternpost_eagle_eye.detect.loss import LossDetector  # noqa: PLC0415
    from sternpost_eagle_eye.detect.outlier import OutlierDetector  # noqa: PLC0415
    from sternpost_eagle_eye.detect.slow import SlowDetector  # noqa: PLC0415
    from sternpost_eagle_eye.detect.storage_stall import StorageStallDetector  # noqa: PLC0415
    from sternpost_eagle_eye.detect.worker_gone import WorkerGoneDetector  # noqa: PLC0415

    return (
        HardwareDetector(),
        WorkerGoneDetector(policy.interval_seconds, 0.0),
        HangDetector(policy.hang, 0.0),
        SlowDetector(policy.slow),
        DataStallDetector(policy.slow),
        StorageStallDetector(),
        LossDetector(),
        OutlierDetector(),
    )
