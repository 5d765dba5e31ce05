"""The interface between decisions and the world."""

from __future__ import annotations

from typing import Protocol

from sternpost_operator.recovery.actions import Action
from sternpost_operator.recovery.observed import Observed
from sternpost_operator.resources.training_job import TrainingJob
from sternpost_operator.resources.training_job_status import TrainingJobStatus


class ConflictError(Exception):
    """The object changed since it was read; observe and plan again."""


class Cluster(Protocol):
    """What a reconcile needs; all calls may raise `OSError` when the cluster does not answer."""

    async def get_job(self, name: str) -> TrainingJob | None:
        """The job as it is stored, or None when it is gone."""
        ...

    async def observe(self, job: TrainingJob) -> Observed:
        """Everything that `plan` looks at."""
        ...

    async def write_status(self, job: TrainingJob, status: TrainingJobStatus) -> TrainingJob:
        """Store the status if the job is still the version that was read; raises `ConflictError` otherwise."""
        ...

    async def act(self, job: TrainingJob, action: Action) -> None:
        """Do it, or find that it is done."""
        ...
