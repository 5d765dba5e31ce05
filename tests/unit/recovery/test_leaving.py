"""Nodes that announce their end: a checkpoint just in time, then the move."""

from __future__ import annotations

import copy
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recovery_scene import Scene, assignment, created, deleted, written

from sternpost_operator.recovery.leaving import tolerated_seconds
from sternpost_operator.recovery.observed import NodeTaint, PodPhase
from sternpost_operator.resources.attempt import AttemptAction
from sternpost_operator.resources.progress import CheckpointReport
from sternpost_operator.resources.training_job import RuleAction
from sternpost_operator.resources.training_job_status import Cause, Rung

MAINTENANCE = "example.com/maintenance"
SPOT = "aws-node-termination-handler/spot-itn"


def training(**spec) -> Scene:
    """Step 10 at two steps a second; step 7 is committed; NoExecute taints are tolerated for a minute."""
    scene = Scene(**spec).tolerating(operator="Exists", effect="NoExecute", tolerationSeconds=60).running(10)
    return scene.progressed(steps_per_second=2.0)


def committed(scene: Scene, step: int) -> Scene:
    return scene.progressed(step=step, checkpoint=CheckpointReport(committed_step=step, committed_at=scene.now))


@pytest.mark.parametrize(
    ("key", "effect"),
    [
        (MAINTENANCE, "NoExecute"),
        (SPOT, "NoSchedule"),
        ("ToBeDeletedByClusterAutoscaler", "NoSchedule"),
        ("karpenter.sh/disrupted", "NoSchedule"),
        ("cloud.google.com/impending-node-termination", "NoSchedule"),
    ],
)
def test_a_node_that_goes_is_left_after_a_checkpoint_just_in_time(key, effect):
    scene = training()
    asked = written(scene.tainted(1, key, effect).plan())
    # Two steps a second: what all ranks can still hear of, three seconds ahead.
    assert (asked.number, asked.action, asked.save_at_step) == (1, AttemptAction.RUN, 17)
    assert asked.issued_at == scene.now
    assert scene.status.attempts == []
    assert scene.later(3).progressed(step=16).plan().actions == scene.plan().actions
    assert scene.status.attempts == []
    made = committed(scene.later(1), 17).plan()
    assert assignment(written(made)) == {0: "gpt-0", 1: "gpt-3", 2: "gpt-2"}
    assert written(made).save_at_step is None
    assert deleted(made) == ["gpt-1"]
    record = scene.status.attempts[-1]
    assert (record.cause, record.rung, record.node, record.worker) == (Cause.NODE_LEAVING, Rung.PODS, "node-1", 1)
    assert "step 17 was saved" in record.message
    assert scene.status.budgets.pods == 1
    scene.later(2).reported().restored(17).at_step(18, first=18).plan()
    assert scene.status.attempts[-1].lost_steps == 0


def test_it_is_no_offence_and_the_node_is_used_again_when_it_stays_after_all():
    scene = training()
    scene.tainted(1, MAINTENANCE).plan()
    committed(scene.later(4), 17).plan()
    assert scene.status.excluded_nodes == []
    assert [each.excluded for each in scene.status.unsent_incidents] == [None]
    made = scene.without_pod(1).plan()
    assert [(each.slot, each.excluded_nodes) for each in made.actions if hasattr(each, "slot")] == [(1, ("node-1",))]
    scene.with_pods(1).pod(1, phase=PodPhase.PENDING, node=None, ready=False, excluded_nodes=("node-1",)).plan()
    # The announcement was withdrawn: a Pod that waits elsewhere need not.
    assert deleted(scene.node(1, taints=()).plan()) == ["gpt-1"]


def test_a_sign_that_goes_away_was_none():
    scene = training()
    scene.tainted(1, MAINTENANCE).plan()
    scene.node(1, taints=()).later(1).plan()
    assert scene.status.recovery is None
    assert scene.later(60).plan().actions == ()
    # A later announcement makes a new appointment.
    scene.progressed(step=100, last_step_at=scene.now)
    assert written(scene.tainted(1, MAINTENANCE).plan()).save_at_step == 107


def test_time_is_up_without_a_commit():
    scene = training()
    scene.tainted(1, MAINTENANCE).plan()
    scene.later(29).plan()
    assert scene.status.attempts == []
    scene.later(1).plan()
    record = scene.status.attempts[-1]
    assert record.cause is Cause.NODE_LEAVING
    assert "saved" not in record.message


def test_the_toleration_limits_the_wait():
    scene = training()
    scene.tainted(1, MAINTENANCE, ago=50).plan()
    assert scene.status.recovery.save_by == scene.now.replace(second=scene.now.second + 10)
    scene.later(10).plan()
    assert scene.status.attempts[-1].cause is Cause.NODE_LEAVING


@pytest.mark.parametrize(
    "hindrance",
    [
        lambda scene: scene.progressed(steps_per_second=0.02),
        lambda scene: scene.spec(checkpoint=None),
        lambda scene: scene.tainted(1, MAINTENANCE, ago=58),
    ],
)
def test_where_no_checkpoint_can_come_of_it_the_job_moves_at_once(hindrance):
    scene = training()
    scene.tainted(1, MAINTENANCE)
    hindrance(scene).plan()
    assert scene.status.attempts[-1].cause is Cause.NODE_LEAVING


@pytest.mark.parametrize(
    "unknown",
    [
        lambda scene: scene.progressed(steps_per_second=None),
        lambda scene: scene.progressed(steps_per_second=float("nan")),
        lambda scene: scene.progressed(last_step_at=scene.now - timedelta(seconds=13)),
        lambda scene: scene.unanswered(),
    ],
)
def test_a_report_is_waited_for_and_not_for_long(unknown):
    scene = training().tainted(1, MAINTENANCE)
    answer = scene.progress
    unknown(scene).plan()
    assert scene.status.recovery.save_at_step is None
    scene.later(11).plan()
    assert scene.status.attempts == []
    scene.later(1)
    # A new leader hears of the job just in time, or does not.
    unheard = copy.deepcopy(scene)
    unheard.plan()
    assert unheard.status.attempts[-1].cause is Cause.NODE_LEAVING
    scene.now -= timedelta(seconds=1)
    scene.progress = answer.model_copy(update={"at": scene.now, "step": 30, "last_step_at": scene.now})
    assert written(scene.plan()).save_at_step == 37


def test_an_attempt_that_has_made_no_step_has_nothing_to_save():
    scene = Scene().tolerating(operator="Exists", effect="NoExecute", tolerationSeconds=60).with_pods(0, 1, 2, 3)
    scene.plan()
    scene.later(1).reported().plan()
    scene.tainted(1, MAINTENANCE).plan()
    assert scene.status.attempts[-1].cause is Cause.NODE_LEAVING


def test_what_the_template_tolerates_for_ever_moves_nobody():
    scene = Scene().tolerating(key=MAINTENANCE, operator="Exists").running().progressed(steps_per_second=2.0)
    assert scene.tainted(1, MAINTENANCE).later(100).plan().actions == ()
    assert scene.status.recovery is None


def test_a_cordon_alone_moves_nobody():
    scene = training().node(1, unschedulable=True).tainted(1, "node.kubernetes.io/unschedulable", "NoSchedule")
    assert scene.later(100).plan().actions == ()


@pytest.mark.parametrize("key", ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"])
def test_a_node_that_does_not_answer_is_no_node_that_leaves(key):
    scene = training().node_unready(1, seconds=1).tainted(1, key)
    scene.plan()
    assert scene.status.recovery is None
    scene.later(10).plan()
    assert scene.status.attempts[-1].cause is Cause.NODE_LOST


def test_a_node_out_of_service_is_lost_and_its_pod_removed_without_waiting():
    scene = training().node_unready(1, seconds=0).tainted(1, "node.kubernetes.io/out-of-service")
    scene.plan()
    assert scene.status.attempts[-1].cause is Cause.NODE_LOST
    made = scene.pod(1, deleting_since=scene.now).plan()
    assert [action.force for action in made.actions if getattr(action, "name", "") == "gpt-1"] == [True]


def test_a_pod_that_is_about_to_be_ended_is_moved_and_says_why():
    scene = training().pod(1, disruption="EvictionByEvictionAPI: Eviction API: evicting", deleting_since=None)
    assert written(scene.plan()).save_at_step == 17
    made = committed(scene.later(4), 17).plan()
    assert deleted(made) == ["gpt-1"]
    assert "EvictionByEvictionAPI" in scene.status.attempts[-1].message
    assert scene.status.excluded_nodes == []


def test_a_pod_that_is_being_deleted_by_the_taint_manager_has_its_grace_left():
    scene = training(recovery={"grace_seconds": 10})
    scene.pod(1, disruption="DeletionByTaintManager: taint", deleting_since=scene.now)
    assert written(scene.plan()).save_at_step == 17
    scene.later(9).plan()
    assert scene.status.attempts == []
    scene.later(1).plan()
    assert scene.status.attempts[-1].cause is Cause.NODE_LEAVING


@pytest.mark.parametrize("how", ["failed", "gone"])
def test_a_pod_that_is_gone_already_saves_nothing(how):
    scene = training().tainted(1, MAINTENANCE)
    scene.without_pod(1) if how == "gone" else scene.pod(1, phase=PodPhase.FAILED)
    scene.plan()
    assert scene.status.attempts[-1].cause is Cause.NODE_LEAVING


def test_a_rank_that_dies_meanwhile_is_explained_by_the_node_that_goes():
    scene = training(rules={143: RuleAction.FAIL_JOB}).tainted(1, MAINTENANCE)
    scene.plan()
    scene.later(1).rank_failed(1, code=143).plan()
    scene.later(2).plan()
    record = scene.status.attempts[-1]
    assert (record.cause, record.worker) == (Cause.NODE_LEAVING, 1)


def test_when_most_nodes_go_at_once_all_are_left():
    scene = training()
    for number in (0, 1, 2):
        scene.tainted(number, SPOT, "NoSchedule")
    scene.plan()
    made = committed(scene.later(4), 17).plan()
    assert deleted(made) == ["gpt-0", "gpt-1", "gpt-2"]


def test_nodes_that_repel_pods_anyway_are_not_listed():
    scene = Scene(workers=2, spares=0).with_pods(0, 1)
    scene.pods.clear()
    scene.node(7).tainted(7, "pool", "NoExecute").node(8).tainted(8, SPOT, "NoSchedule")
    made = scene.plan()
    assert {each.excluded_nodes for each in made.actions if hasattr(each, "slot")} == {("node-8",)}


def test_a_spare_on_a_node_that_goes_is_made_anew_and_costs_nothing():
    scene = training()
    assert deleted(scene.tainted(3, MAINTENANCE).plan()) == ["gpt-3"]
    assert scene.status.recovery is None
    assert created(scene.without_pod(3).plan()) == [3]
    assert scene.status.budgets.pods == 0


def test_a_worker_that_waits_on_a_node_that_goes_is_made_anew_and_costs_nothing():
    scene = Scene(workers=2, spares=0).with_pods(0)
    scene.plan()
    assert deleted(scene.tainted(0, SPOT, "NoSchedule").plan()) == ["gpt-0"]
    assert scene.status.restarts == 0


def test_a_node_lost_before_the_checkpoint_is_a_lost_node():
    scene = training().tainted(1, MAINTENANCE)
    scene.plan()
    scene.later(1).node_unready(1, seconds=10).plan()
    assert scene.status.attempts[-1].cause is Cause.NODE_LOST


def test_the_appointment_survives_the_end_of_an_earlier_recovery():
    scene = training()
    scene.rank_failed(0).rank_failed(1).rank_failed(2).plan()
    scene.later(1).reported().progressed(step=7, steps_per_second=2.0, last_step_at=scene.now).plan()
    asked = written(scene.tainted(1, MAINTENANCE).plan())
    assert asked.save_at_step == 14
    scene.later(1).at_step(9, first=8).progressed(steps_per_second=2.0).plan()
    assert scene.status.recovery.save_at_step == 14
    assert scene.status.recovery.decided_at is None
    committed(scene.later(3), 14).plan()
    assert [each.cause for each in scene.status.attempts] == [Cause.RANK_FAILED, Cause.NODE_LEAVING]


TAINT = NodeTaint("key", "NoExecute", "value")


@pytest.mark.parametrize(
    ("toleration", "seconds"),
    [
        ({"operator": "Exists"}, None),
        ({"operator": "Exists", "tolerationSeconds": 5}, 5),
        ({"key": "key", "value": "value"}, None),
        ({"key": "key", "operator": "Equal", "value": "other"}, 0),
        ({"key": "key", "operator": "Exists", "effect": "NoSchedule"}, 0),
        ({"key": "key", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": -3}, 0),
        ({"key": "other", "operator": "Exists"}, 0),
        ({}, 0),
    ],
)
def test_tolerations_match_as_in_kubernetes(toleration, seconds):
    assert tolerated_seconds([toleration], TAINT) == seconds


@given(st.lists(st.integers(0, 1000), min_size=1))
def test_the_shortest_toleration_counts(limits):
    tolerations = [{"operator": "Exists", "tolerationSeconds": limit} for limit in limits]
    assert tolerated_seconds([*tolerations, {"operator": "Exists"}], TAINT) == min(limits)
