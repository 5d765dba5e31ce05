from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

import pytest

from sternpost_operator import reconcile as module
from sternpost_operator.cluster.base import ConflictError
from sternpost_operator.reconcile import CONFLICT_LIMIT, reconcile
from sternpost_operator.recovery.actions import Action, CreatePod, DeletePod, RecordIncident
from sternpost_operator.recovery.observed import Observed
from sternpost_operator.recovery.plan import Plan
from sternpost_operator.resources.progress import ProgressReport
from sternpost_operator.resources.training_job import TrainingJob
from sternpost_operator.resources.training_job_status import Incident, TrainingJobStatus


class FakeCluster:
    """Remembers what happened in which order; fails where told to."""

    def __init__(self, job: TrainingJob | None) -> None:
        self.job = job
        self.log: list[object] = []
        self.conflicts = 0
        self.failing: set[type] = set()
        self.silent = False

    async def get_job(self, name: str) -> TrainingJob | None:
        if self.silent:
            raise ConnectionRefusedError("no cluster")
        return self.job

    async def observe(self, job: TrainingJob) -> Observed:
        self.log.append("observe")
        return Observed()

    async def write_status(self, job: TrainingJob, status: TrainingJobStatus) -> TrainingJob:
        if self.conflicts:
            self.conflicts -= 1
            raise ConflictError("changed")
        self.log.append("write")
        self.job = job.model_copy(update={"status": status})
        return self.job

    async def act(self, job: TrainingJob, action: Action) -> None:
        if type(action) in self.failing:
            raise TimeoutError("no answer")
        self.log.append(action)


CREATE = CreatePod(0)
DELETE = DeletePod("p", "u", 1)


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Callable[[TrainingJobStatus, tuple[Action, ...]], None]:
    def use(status: TrainingJobStatus, actions: tuple[Action, ...]) -> None:
        monkeypatch.setattr(module, "plan", lambda job, observed, now: Plan(status, actions))

    return use


def go(cluster: FakeCluster, at: Callable[[float], datetime]) -> module.Reconciled:
    return asyncio.run(reconcile(cluster, "gpt", lambda: at(0)))


def test_the_status_is_written_before_anything_is_done(job, at, planned) -> None:
    cluster = FakeCluster(job)
    planned(TrainingJobStatus(restarts=1), (DELETE, CREATE))
    result = go(cluster, at)
    assert cluster.log == ["observe", "write", DELETE, CREATE]
    assert (result.changed, result.acted, result.retry) == (True, 2, False)
    assert result.job is not None
    assert result.job.status.restarts == 1


def test_a_status_that_is_the_same_is_not_written(job, at, planned) -> None:
    cluster = FakeCluster(job)
    planned(job.status, ())
    assert not go(cluster, at).changed
    assert cluster.log == ["observe"]


def test_a_conflict_means_to_look_again_and_nothing_was_done(job, at, planned) -> None:
    cluster = FakeCluster(job)
    cluster.conflicts = 2
    planned(TrainingJobStatus(restarts=1), (CREATE,))
    assert not go(cluster, at).retry
    assert cluster.log == ["observe", "observe", "observe", "write", CREATE]


def test_endless_conflicts_end(job, at, planned) -> None:
    cluster = FakeCluster(job)
    cluster.conflicts = 10**6
    planned(TrainingJobStatus(restarts=1), (CREATE,))
    assert go(cluster, at).retry
    assert cluster.log == ["observe"] * CONFLICT_LIMIT


def test_an_action_that_fails_stops_what_follows(job, at, planned) -> None:
    cluster = FakeCluster(job)
    cluster.failing = {DeletePod}
    planned(TrainingJobStatus(restarts=1), (DELETE, CREATE))
    result = go(cluster, at)
    assert (result.retry, result.acted) == (True, 0)
    assert CREATE not in cluster.log
    assert result.job is not None
    assert result.job.status.restarts == 1


def test_a_silent_memory_service_holds_nothing_up(job, at, planned) -> None:
    cluster = FakeCluster(job)
    cluster.failing = {RecordIncident}
    planned(job.status, (RecordIncident(Incident(id="i", at=at(0), text="t")), CREATE))
    result = go(cluster, at)
    assert cluster.log == ["observe", CREATE]
    assert not result.retry


def test_a_cluster_that_does_not_answer_is_tried_later(job, at, planned) -> None:
    cluster = FakeCluster(job)
    cluster.silent = True
    result = go(cluster, at)
    assert result.retry
    assert "no cluster" in result.error


def test_a_job_that_is_gone(at) -> None:
    result = go(FakeCluster(None), at)
    assert result.job is None
    assert not result.retry


def test_the_last_figures_outlive_worker_0(job, at, planned) -> None:
    planned(job.status, ())
    known = ProgressReport(attempt="1-a", attempt_number=1, at=at(0), step=7)
    result = asyncio.run(reconcile(FakeCluster(job), "gpt", lambda: at(1), last_progress=known))
    assert result.observed is not None
    assert result.observed.progress is None
    assert result.observed.last_progress == known
