"""Progress, as the operator parses it."""

from __future__ import annotations

import math

import pytest

from sternpost_eagle_eye.progress import progress_report
from sternpost_eagle_eye.vector import CheckpointVector

OperatorReport = pytest.importorskip("sternpost_operator.resources.progress").ProgressReport


def report(job):
    text = progress_report(job.judge.job, job.judge.clock(job.now), job.wall).to_json()
    return OperatorReport.model_validate_json(text)


def test_before_anybody_reports(simulate):
    job = simulate(4, spares=1)
    read = report(job)
    assert (read.attempt, read.attempt_number, read.step, read.workers) == ("3-9f2c1a00", 3, None, [])
    assert not read.reports_steps


def test_training(simulate):
    job = simulate(4, seed=1, noise=0.01)
    job.run(5)
    assert report(job).reports_steps
    assert (report(job).phase, report(job).step) == ("init", None)
    job.train(40)
    read = report(job)
    assert read.step == job.steps
    assert read.steps_per_second == pytest.approx(9, rel=0.15)
    assert (read.loss, read.phase) == (2.5, "train")
    assert 0 < read.first_step <= 20
    assert 0 <= read.first_step_at.timestamp() - job.wall + 40 <= 2
    assert read.last_step_at.timestamp() == job.wall
    assert [worker.index for worker in read.workers] == [0, 1, 2, 3]
    assert {worker.launcher for worker in read.workers} == {"running"}
    job.standing = True
    job.run(29)
    assert report(job).steps_per_second < 1


def test_the_jobs_step_is_the_last_that_all_completed(simulate):
    job = simulate(4, seed=1).train(10)
    job.behind[2] = 3
    job.run(1)
    assert report(job).step == job.steps - 3
    assert report(job).workers[2].step == job.steps - 3


def test_a_worker_not_heard_of_leaves_the_step_open(simulate):
    job = simulate(4, seed=1)
    job.silent, job.phase = {3}, "train"
    job.run(10)
    assert report(job).step is None
    assert len(report(job).workers) == 3


def test_a_restored_step_is_not_a_completed_one(simulate):
    job = simulate(2, seed=1)
    job.restored = 40
    job.run(5)
    assert report(job).first_step is None
    job.phase = "train"
    job.run(5)
    assert report(job).first_step > 40


def edited(job, worker, **fields):
    vector = job.vector(worker)
    return vector.model_copy(update={"ranks": (vector.ranks[0].model_copy(update=fields),)})


def test_restores_and_checkpoints(simulate):
    job = simulate(2, seed=1).train(5)
    base = {"restored_step": 40, "restore_at": job.wall, "blocked_count": 2, "blocked_sum": 0.5}
    take = job.judge.take
    take(edited(job, 0, **base, restore_seconds=0.2, restore_source="shared-memory"), job.now, job.wall)
    second = edited(job, 1, **base, restore_seconds=0.9, restore_source="storage")
    committed = CheckpointVector(committed_step=50, committed_at=job.wall)
    take(second.model_copy(update={"checkpoint": committed}), job.now, job.wall)
    take(edited(job, 0, **base | {"blocked_count": 3, "blocked_sum": 0.8}), job.now, job.wall)
    read = report(job)
    assert (read.restored.step, read.restored.seconds, read.restored.source) == (40, 0.9, "storage")
    assert (read.checkpoint.saves, read.checkpoint.blocked_seconds_sum) == (3, 0.8)
    assert read.checkpoint.blocked_seconds_last == pytest.approx(0.3)
    assert (read.checkpoint.committed_step, read.checkpoint.committed_at.timestamp()) == (50, job.wall)


def test_what_is_no_number_stays_out(simulate):
    job = simulate(2, seed=1).train(5)
    job.judge.take(edited(job, 0, loss=math.nan), job.now, job.wall)
    assert report(job).loss is None


def test_a_failed_worker(simulate):
    job = simulate(2, seed=1).train(5)
    vector = job.vector(1)
    ranks = tuple(
        vector.launcher.ranks[0].model_copy(update={"rank": rank, "exit_code": code, "exited_at": at})
        for rank, code, at in ((2, -9, 50.0), (1, 3, 40.0), (3, 0, 10.0))
    )
    failed = vector.launcher.model_copy(update={"state": "failed", "message": "rank 1 exited with 3", "ranks": ranks})
    job.judge.take(vector.model_copy(update={"launcher": failed}), job.now, job.wall)
    worker = report(job).workers[1]
    assert (worker.launcher, worker.message) == ("failed", "rank 1 exited with 3")
    assert (worker.first_failure.rank, worker.first_failure.exit_code) == (1, 3)
