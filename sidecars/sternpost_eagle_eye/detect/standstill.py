"""Whether the job makes no step now. Pure."""

from __future__ import annotations

from sternpost_eagle_eye.track import JobTrack

LEAST_SECONDS = 1.8
STEPS = 2.0
"""Step times without a step that are no chance any more."""
WAITING_SECONDS = 1.4
WAITING_STEPS = 1.45
"""The same where all others are seen waiting."""


def still_seconds(job: JobTrack, now: float) -> float:
    """How long no worker has completed a step."""
    return now - job.progress_at


def standing(job: JobTrack, now: float, but: int | None = None) -> bool:
    """Whether nobody has completed a step for longer than steps take, though no pause is known.

    Sooner believed when all `but` one wait in a collective.
    """
    if job.phase() not in ("train", None):
        return False
    step = job.step_seconds()
    if step is None:
        step = 1.0
    still = still_seconds(job, now)
    interval = max((track.interval or 0.0 for track in job.workers), default=0.0)
    if still > max(LEAST_SECONDS, 1.2 * interval, STEPS * step):
        return True
    if still <= max(WAITING_SECONDS, interval, WAITING_STEPS * step):
        return False
    others = [track for track in job.workers if track.index != but and track.missing_since is None]
    return len(others) > 1 and all(track.waits() for track in others)
