"""When a job is to be looked at again although nothing is heard of it. Pure.

Whatever happens wakes the job by itself. A clock is only needed for what happens by the passing of time: evidence that settles, a
node or a worker that stays silent, a start that takes too long, an exclusion that ends. To look once too often costs no
request.
"""

from __future__ import annotations

from datetime import datetime

from sternpost_operator.recovery import finish
from sternpost_operator.recovery.observed import Observed, PodPhase
from sternpost_operator.resources.training_job import TrainingJob
from sternpost_operator.resources.training_job_status import Phase

EVIDENCE_SECONDS = 0.5
"""While a failure is judged: settleSeconds is 2 by default."""
MOVING_SECONDS = 1.0
"""While Pods come and go, or an attempt starts."""
SILENT_SECONDS = 2.0
"""While worker 0 does not answer."""
QUIET_SECONDS = 10.0
"""While all is well: a worker or node that falls silent is seen by others, and those wake the job."""
CAPACITY_SECONDS = 15.0
"""While the job waits for nodes: the scheduler's word wakes it."""
UNSENT_SECONDS = 60.0
"""While the memory service is away."""
LONGEST_SECONDS = 3600.0


def next_look(job: TrainingJob, observed: Observed, now: datetime) -> float | None:
    """Seconds until the next look, or None if only an event can change anything."""
    looks = [*_running(job, observed), *_terms(job, now)]
    return min((max(0.05, min(look, LONGEST_SECONDS)) for look in looks), default=None)


def _running(job: TrainingJob, observed: Observed) -> list[float]:
    status = job.status
    if any(pod.deleting_since is not None for pod in observed.pods):
        return [MOVING_SECONDS]  # one on a lost node is deleted by force, also of a job that has ended
    if status.phase.terminal:
        return []
    if status.phase is Phase.SUSPENDED:
        return [] if job.spec.suspend else [MOVING_SECONDS]
    return [EVIDENCE_SECONDS if _is_judging(job, observed) else _pace(job, observed)]


def _pace(job: TrainingJob, observed: Observed) -> float:
    status = job.status
    is_steady = status.phase is Phase.RUNNING and status.recovery is None and not job.spec.suspend
    if is_steady and not (observed.attempt is not None and observed.attempt.complete):
        return QUIET_SECONDS if observed.progress is not None else SILENT_SECONDS
    return CAPACITY_SECONDS if _waits_for_capacity(observed) else MOVING_SECONDS


def _is_judging(job: TrainingJob, observed: Observed) -> bool:
    recovery = job.status.recovery
    if recovery is not None and (recovery.decided_at is None or recovery.again_at is not None):
        return True
    used = {pod.node for pod in observed.pods if pod.node is not None}
    return any(node.name in used and not node.ready for node in observed.nodes) or not used <= {
        node.name for node in observed.nodes
    }


def _waits_for_capacity(observed: Observed) -> bool:
    """Whether nothing moves but the scheduler."""
    waiting = [pod for pod in observed.pods if pod.phase is PodPhase.PENDING and pod.node is None]
    return bool(waiting) and all(
        pod in waiting or pod.phase in (PodPhase.SUCCEEDED, PodPhase.FAILED) or pod.ready for pod in observed.pods
    )


def _terms(job: TrainingJob, now: datetime) -> list[float]:
    """What runs out at a known time."""
    status, found = job.status, []
    if status.unsent_incidents:
        found.append(UNSENT_SECONDS)
    if status.phase.terminal:
        over = finish.delete_at(job, status)
        return found if over is None else [*found, max(MOVING_SECONDS, (over - now).total_seconds())]
    if status.recovery is not None and status.recovery.save_by is not None:
        found.append((status.recovery.save_by - now).total_seconds())
    found += [(each.until - now).total_seconds() for each in status.excluded_nodes]
    return found
