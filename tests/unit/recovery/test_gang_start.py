from __future__ import annotations

from recovery_scene import Scene, assignment, created, deleted, written

from sternpost_operator.recovery.observed import PodPhase
from sternpost_operator.resources.attempt import AttemptAction, attempt_id
from sternpost_operator.resources.progress import LauncherState
from sternpost_operator.resources.training_job import Elastic
from sternpost_operator.resources.training_job_status import Phase


def test_missing_slots_are_created():
    scene = Scene(workers=2, spares=1)
    assert created(scene.plan()) == [0, 1, 2]
    assert scene.status.phase is Phase.PENDING


def test_no_attempt_before_the_gang_is_complete():
    scene = Scene(workers=3, spares=0).with_pods(0, 1)
    assert written(scene.plan()) is None
    assert scene.status.attempt.number == 0


def test_a_complete_gang_starts_under_the_first_number():
    scene = Scene(workers=2, spares=1, ranks_per_worker=4).with_pods(0, 1, 2)
    spec = written(scene.plan())
    assert assignment(spec) == {0: "gpt-0", 1: "gpt-1"}
    assert [spare.pod for spare in spec.spares] == ["gpt-2"]
    assert (spec.number, spec.id, spec.world_size) == (1, attempt_id("uid-of-job", 1), 8)
    assert scene.status.phase is Phase.STARTING


def test_pending_spares_block_nothing_and_are_told():
    scene = Scene(workers=2, spares=1).with_pods(0, 1, 2)
    scene.pod(2, ready=False, phase=PodPhase.PENDING, node=None, address=None, reason="Unschedulable: no node")
    assert written(scene.plan()).action is AttemptAction.RUN
    scene.reported().plan()
    assert scene.status.phase is Phase.RUNNING
    assert scene.condition("SparesReady").status == "False"
    assert scene.condition("Schedulable").status == "True"


def test_a_ready_spare_starts_in_place_of_a_pending_worker():
    scene = Scene(workers=2, spares=1).with_pods(0, 1, 2)
    scene.pod(0, ready=False, phase=PodPhase.PENDING, node=None, address=None)
    assert assignment(written(scene.plan())) == {0: "gpt-1", 1: "gpt-2"}


def test_a_node_that_is_not_ready_starts_nothing():
    scene = Scene(workers=2, spares=0).with_pods(0, 1).node_unready(1, seconds=1)
    assert written(scene.plan()) is None


def test_the_operator_ended_between_status_and_attempt():
    scene = Scene(workers=2, spares=0).with_pods(0, 1)
    made = scene.plan()
    scene.attempt = None
    assert written(scene.later(1).plan()).id == written(made).id
    assert scene.status.attempt.number == 1


def test_one_id_is_never_two_assignments():
    scene = Scene(workers=2, spares=1).with_pods(0, 1, 2)
    scene.plan()
    scene.attempt = None
    scene.without_pod(0).with_pods(0).pod(0, ready=False)
    spec = written(scene.plan())
    assert spec.number == 2
    assert assignment(spec) == {0: "gpt-1", 1: "gpt-2"}
    assert scene.status.budgets.ranks == scene.status.budgets.pods == scene.status.budgets.jobs == 0


def test_an_attempt_of_a_deleted_job_of_the_same_name_counts_for_nothing():
    scene = Scene(workers=2, spares=0).with_pods(0, 1)
    scene.plan()
    old = scene.attempt.model_copy(update={"job_uid": "another", "number": 7})
    fresh = Scene(workers=2, spares=0).with_pods(0, 1)
    fresh.attempt = old
    assert written(fresh.plan()).number == 1


def test_numbers_go_on_from_the_attempt_when_the_status_was_lost():
    scene = Scene(workers=2, spares=0).running()
    scene.job = scene.job.model_copy(update={"status": Scene().job.status})
    scene.progress = None
    assert written(scene.plan()).number == 2


def test_an_elastic_job_waits_for_max_then_runs_with_fewer():
    scene = Scene(workers=None, spares=0, elastic=Elastic(min=2, max=4, wait_seconds=30)).with_pods(0, 1, 2)
    assert written(scene.plan()) is None
    assert written(scene.later(29).plan()) is None
    assert assignment(written(scene.later(1).plan())) == {0: "gpt-0", 1: "gpt-1", 2: "gpt-2"}
    scene.reported().plan()
    assert scene.status.workers.desired == 3


def test_an_elastic_job_does_not_run_below_min():
    scene = Scene(workers=None, spares=0, elastic=Elastic(min=3, max=4, wait_seconds=30)).with_pods(0, 1)
    scene.plan()
    assert written(scene.later(300).plan()) is None


def test_a_survivor_keeps_its_index_over_a_hold():
    scene = Scene(workers=3, spares=0).running()
    scene.without_pod(0).plan()
    held = written(scene.later(2).plan())
    assert held.action is AttemptAction.HOLD
    assert held.workers == []
    scene.with_pods(0)
    run = written(scene.later(1).plan())
    assert (run.number, assignment(run)) == (2, {0: "gpt-0", 1: "gpt-1", 2: "gpt-2"})
    assert [worker.uid for worker in run.workers[1:]] == [worker.uid for worker in held.previous_workers[1:]]


def test_a_spare_waits_a_while_for_a_survivor_that_is_not_ready_just_now():
    scene = Scene(workers=2, spares=1).running()
    scene.rank_failed(1).pod(1, ready=False, trainer_exit_code=-9, trainer_restarts=1).plan()
    assert written(scene.later(2).plan()).action is AttemptAction.HOLD
    assert written(scene.later(5).plan()) is None
    scene.pod(1, ready=True)
    assert assignment(written(scene.plan())) == {0: "gpt-0", 1: "gpt-1"}


def test_a_spare_takes_the_place_of_a_survivor_that_stays_unready():
    scene = Scene(workers=2, spares=1).running()
    scene.rank_failed(1).pod(1, ready=False, trainer_exit_code=-9, trainer_restarts=1).plan()
    scene.later(2).plan()
    assert assignment(written(scene.later(10).plan())) == {0: "gpt-0", 1: "gpt-2"}


def test_more_and_fewer_spares():
    scene = Scene(workers=2, spares=1).running()
    assert created(scene.spec(spares=2).plan()) == [3]
    scene.with_pods(3)
    assert deleted(scene.spec(spares=0).plan()) == ["gpt-3", "gpt-2"]


def test_a_spare_that_became_a_worker_is_no_surplus():
    scene = Scene(workers=2, spares=1).running()
    scene.without_pod(0).plan()
    assert assignment(written(scene.later(2).plan())) == {0: "gpt-2", 1: "gpt-1"}
    scene.with_pods(0).reported().plan()
    assert deleted(scene.spec(spares=0).plan()) == ["gpt-0"]
    scene.without_pod(0)
    made = scene.plan()
    assert (created(made), deleted(made)) == ([], [])


def test_a_deleted_job_deletes_its_pods_and_makes_none():
    scene = Scene(workers=2, spares=0).running()
    made = scene.being_deleted().without_pod(1).plan()
    assert (created(made), deleted(made), written(made)) == ([], ["gpt-0"], None)


def test_a_pod_that_waits_unscheduled_for_an_exclusion_that_ended_is_made_anew():
    scene = Scene(workers=2, spares=0).with_pods(0, 1)
    scene.pod(1, ready=False, phase=PodPhase.PENDING, node=None, address=None, excluded_nodes=("node-7",))
    assert deleted(scene.plan()) == ["gpt-1"]


def test_a_pod_that_never_gets_ready_is_replaced_and_in_the_end_the_job_fails_and_says_why():
    scene = Scene(workers=1, spares=0, recovery={"start_seconds": 60, "budgets": {"pods": 1, "ranks": 9, "jobs": 0}})
    scene.plan()
    for slot_again in range(2):
        scene.with_pods(0).pod(0, ready=False, phase=PodPhase.PENDING, reason="ImagePullBackOff: no such image")
        assert deleted(scene.later(59).plan()) == []
        assert deleted(scene.later(1).plan()) == ["gpt-0"], slot_again
        scene.without_pod(0).later(1).plan()
    assert scene.status.phase is Phase.FAILED
    assert "ImagePullBackOff" in scene.condition("Failed").message


def test_a_trainer_that_reports_no_steps_runs():
    scene = Scene(workers=2, spares=0).with_pods(0, 1)
    scene.plan()
    scene.reported(LauncherState.RUNNING).plan()
    assert scene.status.phase is Phase.RUNNING
    assert scene.condition("ProgressUnknown") is None
    scene.later(60).plan()
    assert scene.condition("ProgressUnknown").status == "True"
    scene.at_step(1).plan()
    assert scene.condition("ProgressUnknown").status == "False"
