"""A worker from whose sidecar nothing comes any more while others report."""

from __future__ import annotations

from sternpost_eagle_eye.detect.base import Finding
from sternpost_eagle_eye.track import JobTrack, WorkerTrack

SILENT_SECONDS = 5.0
SILENT_INTERVALS = 5
UNHEARD_SECONDS = 30.0
"""For a worker never heard of in this attempt: its sidecar may just be starting."""
EVICT_SECONDS = 30.0
"""The operator sees lost Pods and nodes by itself and sooner; after so long it has not."""


class WorkerGoneDetector:
    """Compares when each worker was last heard of."""

    def __init__(self, interval_seconds: float, started_at: float) -> None:
        self._limit = max(SILENT_SECONDS, SILENT_INTERVALS * interval_seconds)
        self._started_at = started_at

    def evaluate(self, job: JobTrack, now: float) -> list[Finding]:
        """Nothing while nobody reports; one finding without a worker when more than half are silent."""
        silent: list[tuple[WorkerTrack, float, float]] = []
        for track in job.workers:
            heard = self._started_at if track.heard_at is None else track.heard_at
            limit = self._limit if track.heard_at is not None else max(self._limit, UNHEARD_SECONDS)
            if now - heard > limit and track.launcher_state(job.attempt.spec.id) != "succeeded":
                silent.append((track, now - heard, limit))
        reporting = len(job.workers) - len(silent)
        if not silent or reporting == 0:
            return []
        if len(silent) > len(job.workers) / 2:
            names = ", ".join(str(track.index) for track, _, _ in silent[:10])
            shortest = min(seconds for _, seconds, _ in silent)
            return [
                Finding(
                    "worker-gone",
                    None,
                    0.5,
                    False,
                    f"nothing from {len(silent)} of {len(job.workers)} workers ({names}…) for {shortest:.0f} s: "
                    "more than half, so that the network or worker 0 itself is as likely to blame",
                )
            ]
        return [self._finding(track, seconds, limit, reporting) for track, seconds, limit in silent]

    def _finding(self, track: WorkerTrack, seconds: float, limit: float, reporting: int) -> Finding:
        beyond = (seconds - limit) / EVICT_SECONDS
        return Finding(
            "worker-gone",
            track.index,
            min(0.95, 0.6 + 0.35 * beyond),
            seconds > limit + EVICT_SECONDS,
            f"nothing from the sidecar of worker {track.index} on node {track.member.node} for {seconds:.0f} s "
            f"(limit {limit:.0f} s) while {reporting} others report",
        )
