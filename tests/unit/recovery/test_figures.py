"""Stages, lost steps, goodput, progress and incidents."""

from __future__ import annotations

from datetime import timedelta

import pytest
from recovery_scene import Scene, told

from sternpost_operator.recovery.observed import PodPhase
from sternpost_operator.resources.progress import LauncherState
from sternpost_operator.resources.training_job_status import MAX_UNSENT_INCIDENTS, Incident, Phase


def recovered() -> Scene:
    """Worker 1 fails at step 10; 2 s later it is decided; restored at step 7."""
    scene = Scene(workers=2, spares=0).running(10)
    scene.rank_failed(1, ago=0.5).plan()
    scene.later(2).plan()
    decided_at = scene.now
    scene.later(4).reported().worker(0, terminated_at=decided_at + timedelta(seconds=1))
    scene.worker(0, started_at=decided_at + timedelta(seconds=3)).worker(
        1, started_at=decided_at + timedelta(seconds=2)
    )
    scene.plan()
    scene.later(1).restored(7).plan()
    scene.later(2).at_step(8, first=8).plan()
    return scene


def test_every_stage_has_its_time():
    stages = recovered().status.attempts[-1].stages
    assert stages.detect == 0.5
    assert stages.decide == 2
    assert stages.terminate == 1
    assert stages.start == 2
    assert stages.restore == 2
    assert stages.first_step == 2


def test_stages_are_filled_as_they_become_known():
    scene = Scene(workers=2, spares=0).running(10)
    scene.rank_failed(0).rank_failed(1).plan()
    assert scene.status.attempts[-1].stages.start is None
    scene.later(3).reported().plan()
    assert scene.status.attempts[-1].stages.start == 3
    assert scene.status.attempts[-1].stages.restore is None
    assert scene.status.phase is Phase.RECOVERING


def test_the_recovery_is_over_with_the_first_step():
    scene = recovered()
    assert scene.status.recovery is None
    assert scene.status.phase is Phase.RUNNING
    assert scene.status.progress.step == 8


def test_lost_steps():
    scene = recovered()
    record = scene.status.attempts[-1]
    assert (record.last_step, record.resumed_step, record.lost_steps) == (10, 7, 3)
    assert scene.status.lost_steps == 3


def test_lost_steps_of_an_attempt_before_one_that_made_none():
    scene = Scene(workers=2, spares=0).running(10)
    scene.rank_failed(0).rank_failed(1).plan()
    scene.later(1).reported().rank_failed(0).rank_failed(1).plan()
    scene.later(1).reported().restored(7).at_step(8, first=8).plan()
    assert [record.lost_steps for record in scene.status.attempts] == [3, 0]
    assert scene.status.lost_steps == 3


def test_a_script_that_restores_by_itself_shows_it_by_its_first_step():
    scene = Scene(workers=2, spares=0).running(10)
    scene.rank_failed(0).rank_failed(1).plan()
    scene.later(1).reported().at_step(5, first=5).plan()
    assert scene.status.attempts[-1].resumed_step == 4
    assert scene.status.lost_steps == 6


def test_a_checkpoint_newer_than_the_last_report_corrects_it():
    scene = Scene(workers=2, spares=0).running(10)
    scene.rank_failed(0).rank_failed(1).plan()
    scene.later(1).reported().restored(12).plan()
    record = scene.status.attempts[-1]
    assert (record.last_step, record.resumed_step, record.lost_steps) == (12, 12, 0)


def test_the_last_answer_tells_the_last_step_of_a_worker_zero_that_is_gone():
    scene = Scene(workers=2, spares=0).running(10)
    scene.later(5).at_step(15).plan()
    assert scene.status.attempt.last_step == 1
    scene.unanswered().without_pod(0).plan()
    scene.later(2).plan()
    assert scene.status.attempts[-1].last_step == 15


def test_goodput_counts_only_steps_that_count():
    scene = Scene(workers=2, spares=0).running(11)
    scene.rank_failed(0).rank_failed(1).plan()
    # 20 s from step 1 to step 11; resuming at step 6 loses half of them.
    assert scene.status.goodput.productive_seconds == pytest.approx(20)
    scene.later(9).reported().restored(6).at_step(7, first=7).plan()
    goodput = scene.status.goodput
    assert goodput.productive_seconds == pytest.approx(10)
    assert goodput.total_seconds == pytest.approx(30)
    assert goodput.ratio == pytest.approx(1 / 3, abs=1e-3)


def test_the_status_is_not_written_for_each_step():
    scene = Scene(workers=2, spares=0).running(10)
    scene.later(30).at_step(40).plan()
    before = scene.status
    for step in range(41, 60):
        scene.later(0.3).at_step(step, committed=step).plan()
        assert scene.status == before
    scene.later(60).at_step(100, committed=99).plan()
    assert scene.status.progress.step == 100
    assert scene.status.checkpoint.last_step == 99
    assert scene.status.checkpoint.location == "file:///checkpoints"


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_left_out(loss):
    scene = Scene(workers=2, spares=0).running()
    scene.later(60).at_step(20).progressed(loss=loss, steps_per_second=loss).plan()
    assert scene.status.progress.loss is None
    assert scene.status == scene.job.model_validate(scene.job.to_wire()).status


def test_incidents_are_told_until_they_are_taken():
    scene = recovered()
    texts = told(scene.plan())
    assert len(texts) == 2
    assert "worker 1" in texts[0]
    assert "node-1" in texts[0]
    assert "exit code 1" in texts[0]
    assert "runs again" in texts[1]
    assert told(scene.later(1).plan()) == texts
    scene.acknowledged = {scene.status.unsent_incidents[0].id}
    assert told(scene.plan()) == texts[1:]


def test_incidents_that_have_no_room_are_not_lost_silently():
    scene = Scene(workers=2, spares=0).running()
    many = [Incident(id=str(number), at=scene.now, text="text") for number in range(MAX_UNSENT_INCIDENTS)]
    status = scene.status.model_copy(update={"unsent_incidents": many})
    scene.job = scene.job.model_copy(update={"status": status})
    scene.rank_failed(0).rank_failed(1).plan()
    assert len(scene.status.unsent_incidents) == MAX_UNSENT_INCIDENTS
    assert scene.status.unsent_incidents[0].id == "1"
    assert scene.condition("IncidentsDropped").status == "True"


def test_the_status_does_not_grow_with_the_workers():
    sizes = []
    for workers in (100, 400):
        scene = Scene(workers=workers, spares=0).running()
        scene.later(100)
        for index in range(workers // 2):
            scene.worker(index, launcher=LauncherState.FAILED)
        scene.plan()
        scene.later(3).plan()
        sizes.append(len(str(scene.status.to_wire())))
    assert sizes[1] < sizes[0] * 1.1


def test_counts():
    scene = Scene(workers=3, spares=1).running()
    workers = scene.status.workers
    assert (workers.desired, workers.ready, workers.running, workers.spares_ready) == (3, 3, 3, 1)
    scene.pod(1, ready=False, reason="container sternpost-eagle-eye: restarting").plan()
    assert [(each.pod, each.worker) for each in scene.status.workers.exceptions] == [("gpt-1", 1)]


def replaced() -> Scene:
    """Worker 1's node is lost; its Pod is gone 3 s after the decision, another is there 1 s later, and ready 4 s later."""
    scene = Scene(workers=2, spares=0).running(10)
    scene.node_unready(1, seconds=10).plan()
    scene.later(1).plan()
    scene.pod(1, deleting_since=scene.now).later(2).without_pod(1).plan()
    scene.later(1).with_pods(1).pod(1, node="node-7", ready=False, phase=PodPhase.PENDING).node(7).plan()
    scene.later(4).pod(1, ready=True, phase=PodPhase.RUNNING).plan()
    return scene


def test_the_stages_of_the_pods_are_counted_from_the_decision():
    stages = replaced().status.attempts[-1].stages
    assert (stages.delete, stages.create, stages.ready) == (3, 4, 8)


def test_the_stages_of_the_pods_never_change_again():
    scene = replaced()
    before = scene.status.attempts[-1].stages
    scene.later(1).reported().restored(7).at_step(8, first=8).plan()
    scene.pod(0, deleting_since=scene.now).plan()
    after = scene.status.attempts[0].stages
    assert (after.delete, after.create, after.ready) == (before.delete, before.create, before.ready)


def test_a_recovery_in_place_deletes_and_creates_nothing():
    stages = recovered().status.attempts[-1].stages
    assert (stages.delete, stages.create, stages.ready) == (None, None, 0)


def test_a_spare_is_ready_at_once_while_the_old_pod_is_still_to_be_deleted():
    scene = Scene(workers=2, spares=1).running(10)
    scene.node_unready(1, seconds=10).plan()
    scene.pod(1, deleting_since=scene.now).later(1).reported().restored(7).at_step(8, first=8).plan()
    stages = scene.status.attempts[-1].stages
    assert (stages.delete, stages.create, stages.ready) == (None, None, 0)
    assert scene.status.recovery is None
    # The recovery is over and the record is still completed.
    scene.later(29).without_pod(1).plan()
    scene.later(1).with_pods(1).pod(1, node="node-7").node(7).plan()
    stages = scene.status.attempts[-1].stages
    assert (stages.delete, stages.create) == (30, 31)


def test_a_whole_restart_has_all_its_stages():
    scene = Scene(workers=2, spares=0, recovery={"budgets": {"ranks": 0, "pods": 0, "jobs": 1}}).running(10)
    scene.rank_failed(0).rank_failed(1).plan()
    scene.pod(0, deleting_since=scene.now).pod(1, deleting_since=scene.now).later(2).without_pod(0).plan()
    assert scene.status.attempts[-1].stages.delete is None
    scene.later(1).without_pod(1).plan()
    scene.later(1).with_pods(0, 1).plan()
    stages = scene.status.attempts[-1].stages
    assert (stages.delete, stages.create, stages.ready) == (3, 4, 4)
