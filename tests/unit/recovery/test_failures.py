from __future__ import annotations

from datetime import timedelta

import pytest
from recovery_scene import Scene, assignment, created, deleted, told, written

from sternpost_operator.recovery.observed import PodPhase
from sternpost_operator.resources.anomaly import AnomalyKind
from sternpost_operator.resources.attempt import AttemptAction
from sternpost_operator.resources.progress import LauncherState
from sternpost_operator.resources.training_job import RuleAction
from sternpost_operator.resources.training_job_status import Cause, Phase, Rung


def test_a_failed_rank_is_noticed_and_after_the_settle_time_restarted_in_place():
    scene = Scene().running()
    assert written(scene.rank_failed(1).plan()) is None
    assert scene.status.recovery.detected_at == scene.now
    assert scene.status.recovery.decided_at is None
    assert scene.status.phase is Phase.RUNNING
    spec = written(scene.later(2).plan())
    assert (spec.number, spec.action) == (2, AttemptAction.RUN)
    assert assignment(spec) == {0: "gpt-0", 1: "gpt-1", 2: "gpt-2"}
    record = scene.status.attempts[-1]
    assert (record.cause, record.rung, record.worker, record.node) == (Cause.RANK_FAILED, Rung.RANKS, 1, "node-1")
    assert "exit code 1" in record.message
    assert (scene.status.budgets.ranks, scene.status.restarts) == (1, 1)
    assert scene.status.phase is Phase.RECOVERING
    assert scene.status.excluded_nodes == []


def test_the_rank_that_failed_first_is_to_blame():
    scene = Scene().running()
    scene.rank_failed(0, ago=1).rank_failed(2, ago=3).plan()
    scene.later(2).plan()
    assert scene.status.attempts[-1].worker == 2


def test_nothing_is_waited_for_when_all_have_failed():
    scene = Scene().running()
    assert written(scene.rank_failed(0).rank_failed(1).rank_failed(2).plan()).number == 2


def test_a_lost_node_is_left_at_once_and_the_spare_takes_over():
    scene = Scene().running()
    assert written(scene.node_unready(1, seconds=9).plan()) is None
    made = scene.node_unready(1, seconds=10).plan()
    assert assignment(written(made)) == {0: "gpt-0", 1: "gpt-3", 2: "gpt-2"}
    assert deleted(made) == ["gpt-1"]
    record = scene.status.attempts[-1]
    assert (record.cause, record.rung, record.node, record.worker) == (Cause.NODE_LOST, Rung.PODS, "node-1", 1)
    assert [each.node for each in scene.status.excluded_nodes] == ["node-1"]
    assert scene.status.budgets.pods == 1


def test_the_lost_node_explains_the_ranks_that_failed_elsewhere():
    scene = Scene().running()
    scene.rank_failed(0).rank_failed(2).node_unready(1, seconds=1).plan()
    scene.later(3).plan()
    assert scene.status.attempts == []
    scene.later(6).plan()
    assert [record.cause for record in scene.status.attempts] == [Cause.NODE_LOST]


def test_a_silent_worker_explains_the_ranks_that_failed_elsewhere():
    scene = Scene().running()
    scene.rank_failed(0).rank_failed(2).plan()
    silent_since = scene.now
    scene.later(5).worker(1, seen_at=silent_since).plan()
    assert scene.status.attempts == []
    scene.later(5).worker(1, seen_at=silent_since).plan()
    record = scene.status.attempts[-1]
    assert (record.cause, record.worker, record.rung) == (Cause.WORKER_SILENT, 1, Rung.PODS)
    assert scene.status.excluded_nodes == []


def test_a_node_that_is_gone_is_lost_and_its_pod_removed_by_force():
    scene = Scene().running()
    made = scene.without_node(1).plan()
    assert scene.status.attempts[-1].cause is Cause.NODE_LOST
    removal = next(action for action in made.actions if getattr(action, "name", "") == "gpt-1")
    assert removal.force


def test_a_pod_that_cannot_end_on_a_lost_node_is_removed_by_force_in_time():
    scene = Scene(recovery={"force_delete_seconds": 30}).running()
    scene.node_unready(1, seconds=10).plan()
    scene.pod(1, deleting_since=scene.now)
    assert deleted(scene.later(29).plan()) == []
    made = scene.later(1).plan()
    assert deleted(made) == ["gpt-1"]
    assert created(made) == []
    assert created(scene.without_pod(1).plan()) == [1]


@pytest.mark.parametrize("how", ["gone", "deleting", "failed", "another"])
def test_a_lost_pod_is_replaced_and_its_node_stays(how):
    scene = Scene().running()
    if how == "gone":
        scene.without_pod(1)
    elif how == "deleting":
        scene.pod(1, deleting_since=scene.now)
    elif how == "failed":
        scene.pod(1, phase=PodPhase.FAILED, ready=False, reason="Evicted: memory")
    else:
        scene.pod(1, uid="another")
    scene.plan()
    assert scene.status.attempts == []
    scene.later(2).plan()
    record = scene.status.attempts[-1]
    assert (record.cause, record.rung, record.worker) == (Cause.POD_LOST, Rung.PODS, 1)
    assert scene.status.excluded_nodes == []


def test_a_slow_node_is_excluded():
    scene = Scene().running()
    made = scene.anomaly(AnomalyKind.SLOW, 2, evict=True).plan()
    assert assignment(written(made)) == {0: "gpt-0", 1: "gpt-1", 2: "gpt-3"}
    assert deleted(made) == ["gpt-2"]
    assert [each.node for each in scene.status.excluded_nodes] == ["node-2"]
    assert scene.status.attempts[-1].cause is Cause.SLOW_NODE
    scene.without_pod(2)
    assert [(each.slot, each.excluded_nodes) for each in scene.plan().actions if hasattr(each, "slot")] == [
        (2, ("node-2",))
    ]


def test_what_is_only_suspected_evicts_nobody():
    scene = Scene().running().anomaly(AnomalyKind.SLOW, 2, evict=False)
    assert written(scene.plan()) is None
    assert scene.status.recovery is None


def test_hardware_evidence_excludes():
    scene = Scene().running().anomaly(AnomalyKind.HARDWARE, 1, evict=True)
    scene.plan()
    assert scene.status.attempts[-1].cause is Cause.NODE_UNHEALTHY
    assert [each.node for each in scene.status.excluded_nodes] == ["node-1"]


@pytest.mark.parametrize(
    "kind", [AnomalyKind.LOSS, AnomalyKind.DATA_STALL, AnomalyKind.STORAGE_STALL, AnomalyKind.OUTLIER]
)
def test_what_no_machine_is_to_blame_for_moves_nobody(kind):
    scene = Scene().running().anomaly(kind, 1, evict=True)
    assert scene.plan().actions == ()


@pytest.mark.parametrize("kind", list(AnomalyKind))
def test_findings_of_another_attempt_are_refused(kind):
    scene = Scene().running().anomaly(kind, 1, evict=True, attempt="0-deadbeef")
    scene.later(60).progressed(last_step_at=scene.now)
    assert written(scene.plan()) is None
    assert scene.status.recovery is None


def test_a_finding_cannot_name_a_node_that_the_job_does_not_run_on():
    scene = Scene().running().anomaly(AnomalyKind.SLOW, evict=True, node="node-of-others")
    scene.anomaly(AnomalyKind.SLOW, 1, evict=True, node="node-2")
    assert written(scene.plan()) is None
    assert scene.status.excluded_nodes == []


def test_a_hang_is_restarted_in_place_and_its_node_suspected_then_excluded():
    scene = Scene().running()
    spec = written(scene.anomaly(AnomalyKind.HANG, 1).plan())
    assert assignment(spec) == {0: "gpt-0", 1: "gpt-1", 2: "gpt-2"}
    assert scene.status.attempts[-1].rung is Rung.RANKS
    assert [each.node for each in scene.status.suspected_nodes] == ["node-1"]
    assert scene.status.excluded_nodes == []
    scene.reported().at_step(11).plan()
    made = scene.anomaly(AnomalyKind.HANG, 1).plan()
    assert scene.status.attempts[-1].rung is Rung.PODS
    assert [each.node for each in scene.status.excluded_nodes] == ["node-1"]
    assert scene.status.suspected_nodes == []
    assert assignment(written(made))[1] == "gpt-3"


def test_a_hang_that_blames_nobody_excludes_nobody():
    scene = Scene().running()
    for _ in range(3):
        scene.anomaly(AnomalyKind.HANG).plan()
        scene.reported().at_step(11).plan()
    assert scene.status.excluded_nodes == scene.status.suspected_nodes == []
    assert [record.rung for record in scene.status.attempts] == [Rung.RANKS] * 3


def test_a_worker_that_is_gone_for_eagle_eye_alone_is_replaced_when_it_stays_gone():
    scene = Scene().running().anomaly(AnomalyKind.WORKER_GONE, 1, evict=True)
    silent_since = scene.now
    scene.later(11).worker(1, seen_at=silent_since)
    assert written(scene.plan()) is None
    scene.later(1).worker(1, seen_at=silent_since).plan()
    record = scene.status.attempts[-1]
    assert (record.cause, record.rung) == (Cause.WORKER_SILENT, Rung.PODS)
    assert scene.status.excluded_nodes == []


def test_a_worker_that_is_heard_of_again_is_not_gone():
    scene = Scene().running().anomaly(AnomalyKind.WORKER_GONE, 1, evict=True)
    assert written(scene.later(60).plan()) is None


def test_worker_zero_that_does_not_answer_is_replaced():
    scene = Scene().running().unanswered()
    scene.later(9).plan()
    assert scene.status.recovery is None
    scene.later(1).plan()
    assert scene.status.recovery.detected_at == scene.now
    scene.later(29).plan()
    assert scene.status.attempts == []
    made = scene.later(1).plan()
    assert scene.status.attempts[-1].cause is Cause.WORKER_SILENT
    assert deleted(made) == ["gpt-0"]
    assert assignment(written(made))[0] == "gpt-3"


def test_an_answer_clears_the_suspicion():
    scene = Scene().running().unanswered()
    scene.later(20).plan()
    assert scene.status.recovery is not None
    scene.reported().at_step(30).plan()
    assert scene.status.recovery is None
    assert scene.status.attempts == []


def test_an_answer_about_an_old_attempt_is_no_answer():
    scene = Scene().running()
    old = scene.progress
    scene.rank_failed(0).rank_failed(1).rank_failed(2).plan()
    scene.progress = old.model_copy(update={"step": 999})
    scene.later(9).plan()
    assert scene.status.progress.step != 999
    assert scene.status.phase is Phase.RECOVERING
    scene.later(1).plan()
    assert scene.status.recovery.again_at is not None
    scene.later(30).plan()
    assert scene.status.attempts[-1].cause is Cause.WORKER_SILENT


def test_a_start_that_takes_too_long_replaces_who_is_late():
    scene = Scene(recovery={"start_seconds": 60}).with_pods(0, 1, 2, 3)
    scene.plan()
    scene.reported().worker(1, launcher=LauncherState.PREFLIGHT, message="shared memory too small")
    assert written(scene.later(59).plan()) is None
    made = scene.later(1).plan()
    record = scene.status.attempts[-1]
    assert (record.cause, record.rung, record.worker) == (Cause.START_TIMEOUT, Rung.PODS, 1)
    assert "shared memory too small" in record.message
    assert deleted(made) == ["gpt-1"]


def test_a_start_that_is_late_everywhere_replaces_nobody():
    scene = Scene(recovery={"start_seconds": 60}).with_pods(0, 1, 2, 3)
    scene.plan()
    made = scene.reported(LauncherState.WAITING).later(60).plan()
    assert scene.status.attempts[-1].rung is Rung.RANKS
    assert deleted(made) == []


def test_nobody_is_excluded_when_most_nodes_are_blamed_at_once():
    scene = Scene(workers=4, spares=0).running()
    for worker in range(3):
        scene.anomaly(AnomalyKind.SLOW, worker, evict=True)
    made = scene.plan()
    assert scene.status.excluded_nodes == []
    assert scene.status.attempts[-1].rung is Rung.RANKS
    assert deleted(made) == []


def test_most_nodes_lost_at_once_restart_the_whole_job():
    scene = Scene(workers=3, spares=0).running()
    made = scene.node_unready(1, seconds=20).node_unready(2, seconds=20).plan()
    assert scene.status.excluded_nodes == []
    assert scene.status.attempts[-1].rung is Rung.JOB
    assert sorted(deleted(made)) == ["gpt-0", "gpt-1", "gpt-2"]
    assert created(made) == []
    scene.without_pod(0)
    assert created(scene.plan()) == []
    scene.without_pod(1).without_pod(2)
    assert created(scene.plan()) == [0, 1, 2]


def test_exclusions_end():
    scene = Scene(recovery={"exclude_seconds": 100}).running()
    scene.anomaly(AnomalyKind.SLOW, 2, evict=True).plan()
    scene.later(99).reported().plan()
    assert len(scene.status.excluded_nodes) == 1
    scene.later(1).plan()
    assert scene.status.excluded_nodes == []


def test_a_node_lost_during_a_hold_is_excluded_at_no_cost():
    scene = Scene(workers=3, spares=0).running()
    scene.without_pod(0).plan()
    scene.later(2).plan()
    used = scene.status.budgets
    made = scene.node_unready(1, seconds=10).plan()
    assert [each.node for each in scene.status.excluded_nodes] == ["node-1"]
    assert scene.status.budgets == used
    assert deleted(made) == ["gpt-1"]
    assert any("node-1" in text for text in told(made))


def test_too_few_nodes_left_is_said_and_the_job_waits():
    scene = Scene(workers=3, spares=0).running()
    scene.anomaly(AnomalyKind.SLOW, 2, evict=True).plan()
    scene.without_pod(2).plan()
    scene.with_pods(2).pod(
        2,
        ready=False,
        phase=PodPhase.PENDING,
        node=None,
        reason="Unschedulable: 1 excluded",
        excluded_nodes=("node-2",),
    )
    scene.plan()
    condition = scene.condition("Schedulable")
    assert (condition.status, condition.reason) == ("False", "NodesExcluded")
    assert "node-2" in condition.message
    scene.later(4000).plan()
    assert scene.status.phase is Phase.RECOVERING


@pytest.mark.parametrize(
    ("action", "rung", "excluded"),
    [
        (RuleAction.RESTART_RANKS, Rung.RANKS, []),
        (RuleAction.REPLACE_POD, Rung.PODS, []),
        (RuleAction.EXCLUDE_NODE, Rung.PODS, ["node-1"]),
        (RuleAction.RESTART_JOB, Rung.JOB, []),
    ],
)
def test_rules_by_exit_code(action, rung, excluded):
    scene = Scene(rules={13: action}).running()
    scene.rank_failed(1, code=13).plan()
    scene.later(2).plan()
    assert scene.status.attempts[-1].rung is rung
    assert [each.node for each in scene.status.excluded_nodes] == excluded


def test_a_rule_can_fail_the_job():
    scene = Scene(rules={13: RuleAction.FAIL_JOB}).running()
    scene.rank_failed(1, code=13).plan()
    made = scene.later(2).plan()
    assert scene.status.phase is Phase.FAILED
    assert scene.condition("Failed").reason == "FailureRule"
    assert sorted(deleted(made)) == ["gpt-0", "gpt-1", "gpt-2", "gpt-3"]
    assert written(made) is None


def test_a_worker_that_fails_again_and_again_without_progress_is_replaced():
    scene = Scene().running()
    for _ in range(4):
        scene.rank_failed(1).plan()
        scene.later(2).plan()
        scene.reported()
    assert [record.rung for record in scene.status.attempts] == [Rung.RANKS] * 3 + [Rung.PODS]


def test_a_worker_that_fails_with_progress_between_is_restarted_in_place():
    scene = Scene().running()
    for number in range(4):
        scene.at_step(20 + number).rank_failed(1).plan()
        scene.later(2).plan()
        scene.reported().at_step(20 + number).plan()
    assert [record.rung for record in scene.status.attempts] == [Rung.RANKS] * 4


def test_a_spent_rung_escalates_and_the_last_one_fails_the_job():
    scene = Scene(recovery={"budgets": {"ranks": 1, "pods": 1, "jobs": 1}}).running()
    for _ in range(4):
        if scene.attempt.action is not AttemptAction.RUN or scene.status.attempt.id != scene.attempt.id:
            for slot in range(4):
                scene.without_pod(slot)
            scene.plan()
            scene.with_pods(0, 1, 2, 3).plan()
            scene.reported().plan()
        scene.rank_failed(1).plan()
        scene.later(2).plan()
        scene.with_pods(1).plan()
        scene.reported() if scene.attempt.workers else None
    assert [record.rung for record in scene.status.attempts] == [Rung.RANKS, Rung.PODS, Rung.JOB, None]
    failed = scene.condition("Failed")
    assert (scene.status.phase, failed.reason) == (Phase.FAILED, "BudgetExceeded")
    assert "spec.recovery.budgets" in failed.message
    assert "RankFailed" in failed.message
    budgets = scene.status.budgets
    assert (budgets.ranks, budgets.pods, budgets.jobs) == (1, 1, 1)


def test_the_launcher_that_was_killed_and_cannot_report():
    scene = Scene().running()
    scene.pod(1, ready=False, trainer_exit_code=-9, trainer_restarts=1, reason="OOMKilled").plan()
    scene.later(2).plan()
    record = scene.status.attempts[-1]
    assert (record.cause, record.worker) == (Cause.RANK_FAILED, 1)
    assert "OOMKilled" in record.message


def test_a_failure_during_the_recovery_is_a_failure_of_its_own():
    scene = Scene().running()
    scene.rank_failed(1).plan()
    scene.later(2).plan()
    scene.reported().rank_failed(0).plan()
    assert scene.status.recovery.cause is Cause.RANK_FAILED
    assert scene.status.recovery.again_at == scene.now
    detected_at = scene.now
    scene.later(2).plan()
    assert scene.status.recovery.detected_at == detected_at
    assert scene.status.recovery.again_at is None
    assert [record.worker for record in scene.status.attempts] == [1, 0]


def test_the_time_of_the_first_sign_survives_the_operator():
    scene = Scene().running()
    scene.rank_failed(1).plan()
    detected_at = scene.now
    scene.job = scene.job.model_validate(scene.job.to_wire())
    scene.later(2).plan()
    assert scene.status.attempts[-1].detected_at == detected_at


def test_a_decision_that_was_not_acted_upon_is_acted_upon_and_charged_once():
    scene = Scene().running()
    scene.rank_failed(1).plan()
    made = scene.later(2).plan()
    scene.attempt = scene.attempt.model_copy(
        update={"number": 1, "id": scene.status.attempts[-1].id, "issued_at": scene.now - timedelta(seconds=60)}
    )
    again = scene.later(1).plan()
    assert written(again).id == written(made).id
    assert scene.status.budgets.ranks == 1
    assert len(scene.status.attempts) == 1


def test_a_worker_that_finished_is_replaced_when_another_fails():
    scene = Scene(workers=2, spares=0).running()
    scene.pod(0, phase=PodPhase.SUCCEEDED, ready=False, trainer_exit_code=0).unanswered()
    scene.without_pod(1).plan()
    made = scene.later(2).plan()
    assert written(made).action is AttemptAction.HOLD
    assert deleted(made) == ["gpt-0"]
    assert created(made) == [1]


def test_a_finished_trainer_whose_pod_then_fails_runs_again():
    scene = Scene(workers=2, spares=0).running()
    scene.pod(0, phase=PodPhase.FAILED, ready=False, trainer_exit_code=0).unanswered()
    scene.plan()
    scene.later(2).plan()
    assert scene.status.attempts[-1].cause is Cause.POD_LOST


def test_others_that_never_finish_after_worker_zero_did():
    scene = Scene(workers=2, spares=0, recovery={"start_seconds": 100}).running()
    scene.pod(0, phase=PodPhase.SUCCEEDED, ready=False, trainer_exit_code=0).unanswered()
    scene.later(59).plan()
    assert scene.status.recovery is None
    scene.later(1).plan()
    scene.later(100).plan()
    record = scene.status.attempts[-1]
    assert (record.cause, record.worker) == (Cause.WORKER_SILENT, 1)


def test_a_pod_that_fails_right_after_its_creation_is_not_made_anew_in_a_spin():
    scene = Scene(workers=2, spares=0).with_pods(0, 1).pod(1, phase=PodPhase.FAILED, ready=False)
    assert deleted(scene.later(9).plan()) == []
    assert deleted(scene.later(1).plan()) == ["gpt-1"]


def test_nodes_that_look_lost_while_their_workers_are_heard_are_not_left():
    scene = Scene(workers=3, spares=0).running()
    for number in range(3):
        scene.node_unready(number, seconds=20, alive=True)
    assert written(scene.plan()) is None
    for number in range(3):
        scene.later(1).node_ready(number)
    scene.plan()
    assert scene.status.attempts == []
    assert scene.status.recovery is None


def test_a_node_that_stays_unready_under_a_living_worker_delays_no_other_decision():
    scene = Scene(workers=3, spares=0).running()
    scene.node_unready(2, seconds=60, alive=True).plan()
    scene.rank_failed(0).plan()
    scene.later(5).plan()
    assert scene.status.attempts[-1].cause is Cause.RANK_FAILED


def test_an_operator_that_just_began_waits_for_the_first_report_before_it_believes_in_lost_nodes():
    scene = Scene(workers=3, spares=0).running()
    scene.progress = None
    scene.node_unready(1, seconds=60).plan()
    assert scene.status.attempts == []
    scene.later(11).plan()
    assert scene.status.attempts == []
    scene.later(1).plan()
    assert scene.status.attempts[-1].cause is Cause.NODE_LOST
