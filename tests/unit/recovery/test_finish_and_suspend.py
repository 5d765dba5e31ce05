from __future__ import annotations

import pytest
from recovery_scene import Scene, assignment, created, deleted, told, written

from sternpost_operator.recovery.actions import DeleteJob
from sternpost_operator.recovery.observed import PodPhase
from sternpost_operator.resources.attempt import AttemptAction
from sternpost_operator.resources.progress import CheckpointReport, LauncherState
from sternpost_operator.resources.training_job import RuleAction
from sternpost_operator.resources.training_job_status import Cause, Phase

DONE = {"phase": PodPhase.SUCCEEDED, "ready": False, "trainer_exit_code": 0}


def test_success_keeps_the_pods_that_hold_the_logs():
    scene = Scene(workers=2, spares=1).running().unanswered()
    scene.pod(0, **DONE)
    assert deleted(scene.plan()) == []
    made = scene.pod(1, **DONE).plan()
    assert scene.status.phase is Phase.SUCCEEDED
    assert scene.status.finished_at == scene.now
    assert scene.condition("Succeeded").status == "True"
    assert scene.condition("NoStepsReported") is None
    assert deleted(made) == ["gpt-2"]
    assert any("succeeded" in text for text in told(made))


def test_a_pod_that_still_commits_its_checkpoint_is_waited_for():
    scene = Scene(workers=2, spares=0).running()
    scene.pod(0, **DONE).pod(1, trainer_exit_code=0, ready=False).worker(1, launcher=LauncherState.SUCCEEDED)
    made = scene.plan()
    assert scene.status.phase is Phase.RUNNING
    assert deleted(made) == []


def test_a_pod_that_is_gone_after_it_said_it_succeeded():
    scene = Scene(workers=2, spares=0).running()
    scene.pod(0, **DONE).without_pod(1).worker(1, launcher=LauncherState.SUCCEEDED)
    scene.plan()
    assert scene.status.phase is Phase.SUCCEEDED


def test_a_trainer_that_exits_at_once_succeeds_and_that_is_said():
    scene = Scene(workers=2, spares=0).with_pods(0, 1)
    scene.plan()
    scene.pod(0, **DONE).pod(1, **DONE).plan()
    assert scene.status.phase is Phase.SUCCEEDED
    assert "StepReporter" in scene.condition("NoStepsReported").message


def test_a_terminal_phase_is_terminal():
    scene = Scene(workers=2, spares=0).running()
    scene.pod(0, **DONE).pod(1, **DONE).plan()
    ended = scene.status
    scene.acknowledged = {each.id for each in ended.unsent_incidents}
    scene.spec(suspend=True).without_pod(0).node_unready(1, seconds=100)
    made = scene.later(100).plan()
    assert scene.status == ended.model_copy(update={"unsent_incidents": []})
    assert (created(made), written(made)) == ([], None)
    assert scene.spec(suspend=False).later(1).plan().actions == ()


def test_suspend_tells_all_to_stop_then_deletes_and_costs_nothing():
    scene = Scene(workers=2, spares=1).running()
    made = scene.spec(suspend=True).plan()
    stop = written(made)
    assert (stop.number, stop.action, stop.workers) == (2, AttemptAction.STOP, [])
    assert deleted(made) == []
    made = scene.pod(0, **DONE).later(1).plan()
    assert (deleted(made), created(made)) == (["gpt-0"], [])
    made = scene.without_pod(0).later(15).plan()
    assert deleted(made) == ["gpt-1", "gpt-2"]
    scene.without_pod(1).without_pod(2).plan()
    assert scene.status.phase is Phase.SUSPENDED
    assert scene.condition("Suspended").status == "True"
    assert scene.status.restarts == 0
    assert scene.status.budgets.ranks == scene.status.budgets.pods == 0
    assert scene.status.attempts[-1].cause is Cause.SUSPENDED
    assert scene.later(1000).plan().actions == scene.plan().actions


def test_a_suspended_job_resumes_under_a_new_number():
    scene = Scene(workers=2, spares=0).running()
    scene.spec(suspend=True).plan()
    scene.without_pod(0).without_pod(1).plan()
    made = scene.spec(suspend=False).later(60).plan()
    assert created(made) == [0, 1]
    assert written(made).action is AttemptAction.HOLD
    scene.with_pods(0, 1)
    spec = written(scene.later(5).plan())
    assert (spec.number, assignment(spec)) == (3, {0: "gpt-0", 1: "gpt-1"})
    scene.reported().restored(7).at_step(8, first=8).plan()
    assert scene.status.phase is Phase.RUNNING
    assert scene.condition("Suspended").status == "False"
    assert scene.status.lost_steps == 3


def test_a_stop_that_began_is_completed_before_the_job_resumes():
    scene = Scene(workers=2, spares=0).running()
    scene.spec(suspend=True).plan()
    made = scene.spec(suspend=False).pod(0, **DONE).plan()
    assert (deleted(made), created(made)) == (["gpt-0"], [])
    made = scene.without_pod(0).without_pod(1).plan()
    assert created(made) == [0, 1]
    assert scene.status.attempt.number == 3


def test_a_job_that_begins_suspended_makes_no_pods():
    scene = Scene(workers=2, spares=0, suspend=True)
    assert scene.plan().actions == ()
    assert scene.status.phase is Phase.SUSPENDED
    assert created(scene.spec(suspend=False).plan()) == [0, 1]


def test_exiting_on_stop_is_no_success():
    scene = Scene(workers=2, spares=0).running()
    scene.spec(suspend=True).plan()
    scene.pod(0, **DONE).pod(1, **DONE).plan()
    assert scene.status.phase is not Phase.SUCCEEDED


def test_all_exited_well_just_as_it_is_suspended_is_a_success():
    scene = Scene(workers=2, spares=0).running().spec(suspend=True)
    scene.pod(0, **DONE).pod(1, **DONE).plan()
    assert scene.status.phase is Phase.SUCCEEDED


def test_the_attempt_is_complete_when_all_ranks_succeeded_and_the_job_when_the_pods_have():
    scene = Scene(workers=2, spares=0).with_pods(0, 1).running()
    scene.worker(0, launcher=LauncherState.SUCCEEDED)
    assert written(scene.plan()) is None
    scene.worker(1, launcher=LauncherState.SUCCEEDED)
    complete = written(scene.plan())
    assert complete is not None
    assert complete.complete
    assert scene.status.phase is not Phase.SUCCEEDED
    assert written(scene.plan()) is None
    scene.without_pod(0).unanswered().later(60).plan()
    assert scene.status.restarts == 0, "what happens to a Pod after all have succeeded is no failure"
    scene.pod(1, **DONE).plan()
    assert scene.status.phase is Phase.SUCCEEDED


def test_a_storage_that_refuses_is_a_condition_until_it_takes_again():
    scene = Scene(workers=2, spares=0).with_pods(0, 1).running()
    scene.progressed(checkpoint=CheckpointReport(problem="step 20 is not stored: no space left")).plan()
    condition = scene.condition("CheckpointsFailing")
    assert condition.status == "True"
    assert "step 20 is not stored: no space left" in condition.message
    assert scene.status.restarts == 0
    scene.progressed(checkpoint=CheckpointReport(committed_step=20, committed_at=scene.now)).plan()
    assert scene.condition("CheckpointsFailing").status == "False"


@pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.FAILED])
def test_a_finished_job_is_deleted_when_its_time_is_over_and_its_incidents_are_told(phase):
    scene = Scene(workers=1, spares=0, ttl_seconds_after_finished=60, rules={3: RuleAction.FAIL_JOB}).running()
    if phase is Phase.SUCCEEDED:
        scene.pod(0, **DONE).plan()
    else:
        scene.rank_failed(0, code=3).plan()
    assert scene.status.phase is phase
    assert DeleteJob() not in scene.later(59).plan().actions
    assert DeleteJob() not in scene.later(1).plan().actions
    scene.acknowledged = {each.id for each in scene.status.unsent_incidents}
    assert scene.plan().actions[-1] == DeleteJob()


def test_a_memory_service_that_is_away_keeps_a_job_for_a_day_at_most():
    scene = Scene(workers=1, spares=0, ttl_seconds_after_finished=0).running()
    scene.pod(0, **DONE).plan()
    assert DeleteJob() not in scene.later(86_399).plan().actions
    assert DeleteJob() in scene.later(1).plan().actions


def test_a_job_without_a_time_stays():
    scene = Scene(workers=1, spares=0).running()
    scene.pod(0, **DONE).plan()
    scene.acknowledged = {each.id for each in scene.status.unsent_incidents}
    assert DeleteJob() not in scene.later(1e8).plan().actions


def test_the_last_checkpoint_tells_how_far_a_job_got():
    scene = Scene(workers=1, spares=0).running()
    scene.progressed(step=58, checkpoint=CheckpointReport(committed_step=60, committed_at=scene.now))
    scene.pod(0, **DONE).plan()
    assert scene.status.phase is Phase.SUCCEEDED
    assert (scene.status.progress.step, scene.status.attempt.last_step) == (60, 60)
