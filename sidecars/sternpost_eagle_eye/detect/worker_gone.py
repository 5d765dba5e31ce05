"""A worker that is gone: nothing comes from its sidecar, or from its trainer, any more, and the others stand.

A missing series alone is no proof: sidecars and exporters restart. In a synchronous job a lost worker stops all others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sternpost_eagle_eye.config import EagleEyePolicy
from sternpost_eagle_eye.detect.base import Finding
from sternpost_eagle_eye.detect.standstill import standing, still_seconds
from sternpost_eagle_eye.track import JobTrack, WorkerTrack

SILENT_INTERVALS = 2.2
SILENT_SECONDS = 2.0
PAUSED_SECONDS = 8.0
"""In an evaluation or a save, when a job that makes no step proves nothing."""
UNCONFIRMED_SECONDS = 30.0
"""Silence while others get on: reported late, and never acted upon."""
STEPLESS_SECONDS = 5.0
"""For jobs that report no steps."""
UNHEARD_SECONDS = 30.0
"""For a worker never heard of in this attempt: its sidecar may just be starting."""
EVICT_SECONDS = 30.0
"""The operator sees lost Pods and nodes by itself and sooner; after so long it has not."""
AT_ONCE_SECONDS = 2.5
"""Workers that went within so many seconds went together; later ones are the first one's victims."""
OOM_SECONDS = 20.0
BEFORE_SECONDS = 4.0
BEFORE_STEPS = 3.0


@dataclass(frozen=True)
class _Missing:
    track: WorkerTrack
    since: float
    """When it was last known to be there."""
    silent: bool
    """Whether its sidecar is gone, too."""
    limit: float
    confirmed: bool


class WorkerGoneDetector:
    """Compares when each worker was last heard of."""

    def __init__(self, interval_seconds: float, started_at: float) -> None:
        self._interval = interval_seconds
        self._started_at = started_at
        self._oom: dict[int, float] = {}
        self._oom_totals: dict[tuple[int, str], float] = {}

    def adopt(self, policy: EagleEyePolicy) -> None:
        """From now on these thresholds count."""
        self._interval = policy.interval_seconds

    def evaluate(self, job: JobTrack, now: float) -> list[Finding]:
        """Nothing while nobody reports; one finding without a worker when more than half are gone at once."""
        self._follow_oom(job, now)
        missing = [found for track in job.workers if (found := self._missing(job, track, now)) is not None]
        silent = [found for found in missing if found.silent]
        if not missing or len(silent) == len(job.workers):
            return []
        first = min(found.since for found in missing)
        together = [found for found in missing if found.since - first <= AT_ONCE_SECONDS]
        if len(together) > len(job.workers) / 2:
            names = ", ".join(str(found.track.index) for found in together[:10])
            shortest = min(now - found.since for found in together)
            return [
                Finding(
                    "worker-gone",
                    None,
                    0.5,
                    False,
                    f"nothing from {len(together)} of {len(job.workers)} workers ({names}…) for {shortest:.0f} s: "
                    "more than half, so that the network or worker 0 itself is as likely to blame",
                )
            ]
        return [self._finding(job, found, now) for found in together]

    def _missing(self, job: JobTrack, track: WorkerTrack, now: float) -> _Missing | None:
        if track.launcher_state(job.attempt.spec.id) == "succeeded" or track.index is None:
            return None
        if track.heard_at is None:
            limit = max(UNHEARD_SECONDS, SILENT_INTERVALS * self._interval)
            gone = now - self._started_at > limit
            return _Missing(track, self._started_at, True, limit, not job.reports_steps()) if gone else None
        least = max(SILENT_SECONDS, SILENT_INTERVALS * max(self._interval, track.interval or 0.0))
        silent = now - track.heard_at > least
        paged = track.page_at if track.page_at is not None else now
        # A rank that is lost takes the worker's others with it, sooner or later.
        paged = min(paged, track.lost_since or paged)
        lost = track.missing_since is not None or track.lost_since is not None
        dead = lost and now - paged > least and job.runs(track)
        died = self._oom.get(track.index)
        if silent:
            since = min(track.heard_at, track.missing_since or track.heard_at)
        elif dead:
            since = paged
        elif died is not None and now - died <= OOM_SECONDS and standing(job, now, track.index) and not track.waits():
            return _Missing(track, died, False, 0.0, True)
        else:
            return None
        return self._judged(job, _Missing(track, since, silent, least, True), now)

    def _judged(self, job: JobTrack, found: _Missing, now: float) -> _Missing | None:
        """Whether it counts, by what the job does meanwhile."""
        away = now - found.since
        if not job.reports_steps():
            limit = max(STEPLESS_SECONDS, SILENT_INTERVALS * 2 * self._interval)
            return replace(found, limit=limit) if found.silent and away > limit else None
        if job.phase() not in ("train", None):
            confirmed = still_seconds(job, now) > PAUSED_SECONDS
            return replace(found, limit=PAUSED_SECONDS, confirmed=confirmed) if away > PAUSED_SECONDS else None
        # If the job stood already, a silence is not the reason for it.
        before = found.since - job.progress_at > max(BEFORE_SECONDS, BEFORE_STEPS * (job.step_seconds() or 0.0))
        if standing(job, now, found.track.index) and not before:
            return found
        return replace(found, confirmed=False) if found.silent and away > UNCONFIRMED_SECONDS else None

    def _finding(self, job: JobTrack, found: _Missing, now: float) -> Finding:
        track, seconds = found.track, now - found.since
        where = f"worker {track.index} on node {track.member.node}"
        others = len(job.workers) - 1
        what = (
            f"nothing from the sidecar of {where} for {seconds:.1f} s (limit {found.limit:.0f} s)"
            if found.silent
            else f"the trainer of {where} has been gone for {seconds:.1f} s while its machine still reports"
        )
        if track.index in self._oom and now - self._oom[track.index] < OOM_SECONDS + seconds:
            what += "; a process was killed there because memory ran out"
        crash = track.sign("crash", "oom", "cuda-oom", since=found.since - OOM_SECONDS)
        if crash is not None:
            what += f"; its log says: {crash[1].line[:160]}"
        if not found.confirmed:
            return Finding(
                "worker-gone", track.index, 0.5, False, f"{what}, though others get on: its sidecar may be to blame"
            )
        stands = f" while {others} others report"
        if job.reports_steps():
            stands += f" and complete no step for {still_seconds(job, now):.1f} s"
        beyond = (seconds - found.limit) / EVICT_SECONDS
        confidence = min(0.95, 0.75 + 0.2 * beyond) if found.silent else 0.9
        evict = found.silent and seconds > found.limit + EVICT_SECONDS
        return Finding("worker-gone", track.index, confidence, evict, what + stands)

    def _follow_oom(self, job: JobTrack, now: float) -> None:
        for track in job.workers:
            if track.index is None:
                continue
            sign = track.sign("oom", since=now - OOM_SECONDS) if track.signs else None
            if sign is not None:
                self._oom[track.index] = sign[0]
            exporters = track.exporters
            if exporters is None:
                continue
            for name in ("container_oom_events", "oom_kills"):
                total = getattr(exporters, name)
                if total is None:
                    continue
                before = self._oom_totals.get((track.index, name), total)
                if total > before:
                    self._oom[track.index] = now
                self._oom_totals[track.index, name] = max(total, before)
