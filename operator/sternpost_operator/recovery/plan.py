"""`plan(job, observed, now) -> Plan`: the whole of recovery in one pure function."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sternpost_operator.recovery.actions import Action
from sternpost_operator.recovery.observed import Observed
from sternpost_operator.resources.training_job import TrainingJob
from sternpost_operator.resources.training_job_status import TrainingJobStatus


@dataclass(frozen=True)
class Plan:
    """The status to write first, then the actions, in this order."""

    status: TrainingJobStatus
    actions: tuple[Action, ...]


def plan(job: TrainingJob, observed: Observed, now: datetime) -> Plan:
    """Decide what the job's status is and what is to be done."""
    raise NotImplementedError
