"""What is counted when a job's status changes. Pure: two statuses in, counts out, so that a recovery counts once."""

from __future__ import annotations

from dataclasses import dataclass

from sternpost_operator.resources.training_job_status import Rung, TrainingJobStatus

STAGES = ("detect", "decide", "delete", "create", "ready", "terminate", "start", "restore", "first_step")

RUNG_NAMES = {Rung.RANKS: "ranks", Rung.PODS: "pods", Rung.JOB: "jobs"}


@dataclass(frozen=True)
class Changes:
    """What came to pass between two statuses."""

    recoveries: tuple[tuple[str, str], ...] = ()
    """Cause and rung of each."""
    stages: tuple[tuple[str, float], ...] = ()
    """Name and seconds of each stage that became known."""
    lost_steps: int = 0


def changes(before: TrainingJobStatus, after: TrainingJobStatus) -> Changes:
    """What `after` tells and `before` did not."""
    known = {record.number: record for record in before.attempts}
    oldest_known = min(known, default=0)
    recoveries: list[tuple[str, str]] = []
    stages: list[tuple[str, float]] = []
    for record in after.attempts:
        if record.rung is None or record.number < oldest_known:
            continue
        was = known.get(record.number)
        if was is None:
            recoveries.append((str(record.cause), RUNG_NAMES[record.rung]))
        for name in STAGES:
            seconds = getattr(record.stages, name)
            if seconds is not None and (was is None or getattr(was.stages, name) is None):
                stages.append((name, seconds))
    return Changes(tuple(recoveries), tuple(stages), max(0, after.lost_steps - before.lost_steps))
