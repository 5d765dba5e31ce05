"""The interface between decisions and the world."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from sternpost_operator.recovery.actions import Action
from sternpost_operator.recovery.observed import Observed
from sternpost_operator.resources.training_job import TrainingJob
from sternpost_operator.resources.training_job_status import TrainingJobStatus


class ConflictError(Exception):
    """The object changed since it was read; observe and plan again."""


class RefusedError(OSError):
    """The cluster answered that it does not take this; the message names the field, as far as the cluster does.

    Trying again is of use only after somebody changed something: a quota, a policy, the job.
    """


class InvalidJobError(Exception):
    """The job as it is stored cannot be understood: it is left alone until it is changed.

    Each of `problems` is `FIELD: MESSAGE`.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Cluster(Protocol):
    """What a reconcile needs; all calls may raise `OSError` when the cluster does not answer."""

    async def get_job(self, name: str) -> TrainingJob | None:
        """The job as it is stored, or None when it is gone; raises `InvalidJobError`."""
        ...

    async def observe(self, job: TrainingJob) -> Observed:
        """Everything that `plan` looks at."""
        ...

    async def node_history(self, job: TrainingJob, nodes: Collection[str]) -> Mapping[str, int]:
        """How often each of the nodes was excluded before, by whatever job, as far as that is known. Raises nothing."""
        ...

    async def write_status(self, job: TrainingJob, status: TrainingJobStatus) -> TrainingJob:
        """Store the status if the job is still the version that was read; raises `ConflictError` otherwise."""
        ...

    async def act(self, job: TrainingJob, action: Action) -> None:
        """Do it, or find that it is done. Raises `RefusedError` where the cluster will not have it."""
        ...
