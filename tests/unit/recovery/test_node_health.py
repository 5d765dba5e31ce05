"""Node conditions that say the hardware is bad; how long nodes stay out; drains that do not get on."""

from __future__ import annotations

from datetime import timedelta

import pytest
from recovery_scene import Scene, assignment, created, deleted, told, written

from sternpost_operator.recovery import exclusion
from sternpost_operator.recovery.observed import PodPhase
from sternpost_operator.resources.anomaly import AnomalyKind
from sternpost_operator.resources.training_job_status import Cause, Rung

DAY = 86_400


def test_a_node_condition_is_decisive():
    scene = Scene().running()
    made = scene.ill(1, ago=2).plan()
    assert assignment(written(made)) == {0: "gpt-0", 1: "gpt-3", 2: "gpt-2"}
    assert deleted(made) == ["gpt-1"]
    record = scene.status.attempts[-1]
    assert (record.cause, record.rung, record.node, record.stages.detect) == (
        Cause.NODE_UNHEALTHY,
        Rung.PODS,
        "node-1",
        2,
    )
    assert "GpuUnhealthy=True (Xid79: the GPU has fallen off the bus)" in record.message
    assert [(each.node, each.proven) for each in scene.status.excluded_nodes] == [("node-1", True)]
    assert exclusion.proven(scene.status) == ("node-1",)


@pytest.mark.parametrize("kind", [AnomalyKind.SLOW, AnomalyKind.HARDWARE])
def test_what_a_job_says_of_a_node_is_no_proof(kind):
    scene = Scene().running().anomaly(kind, 1, evict=True)
    scene.plan()
    assert [(each.node, each.proven) for each in scene.status.excluded_nodes] == [("node-1", False)]
    assert exclusion.proven(scene.status) == ()


def test_a_plan_tells_whom_it_blames_anew():
    scene = Scene().running()
    before = scene.status
    scene.anomaly(AnomalyKind.HANG, 1).plan()
    assert exclusion.newly_blamed(before, scene.status) == {"node-1"}
    assert exclusion.newly_blamed(scene.status, scene.later(1).plan().status) == set()
    before = scene.status
    scene.reported().anomaly(AnomalyKind.SLOW, 2, evict=True).plan()
    assert exclusion.newly_blamed(before, scene.status) == {"node-2"}


def test_a_node_with_a_condition_is_not_used_for_new_workers_while_it_stands():
    scene = Scene(workers=2, spares=0).with_pods(0, 1).node(7).node(8).ill(7)
    scene.pods.clear()
    made = scene.plan()
    assert {each.excluded_nodes for each in made.actions if hasattr(each, "slot")} == {("node-7",)}
    scene.with_pods(0, 1).pod(0, node="node-7")
    assert deleted(scene.plan()) == ["gpt-0"]
    assert scene.status.attempt.number == 0
    assert scene.status.excluded_nodes == []


def test_the_condition_outlasts_the_exclusion():
    scene = Scene(spares=0, recovery={"exclude_seconds": 60}).running()
    scene.ill(1).plan()
    scene.without_pod(1).later(61)
    made = scene.plan()
    assert scene.status.excluded_nodes == []
    assert [each.excluded_nodes for each in made.actions if hasattr(each, "slot")] == [("node-1",)]


def test_two_of_three_nodes_are_believed_if_most_of_the_cluster_is_well():
    scene = Scene().running().node(7).node(8)
    scene.ill(0).ill(1)
    assert deleted(scene.plan()) == ["gpt-0", "gpt-1"]
    assert [each.node for each in scene.status.excluded_nodes] == ["node-0", "node-1"]


def test_conditions_on_most_nodes_are_not_believed_and_that_is_said():
    scene = Scene().running()
    for number in (0, 1, 3):
        scene.ill(number)
    made = scene.plan()
    assert (written(made), deleted(made)) == (None, [])
    assert scene.condition("HardwareEvidenceIgnored").status == "True"
    scene.node(0, conditions=()).plan()
    assert scene.condition("HardwareEvidenceIgnored").status == "False"
    assert [each.node for each in scene.status.excluded_nodes] == ["node-1"]


@pytest.mark.parametrize(
    ("earlier", "seconds"), [(0, DAY), (1, 2 * DAY), (3, 8 * DAY), (5, 30 * DAY), (10_000, 30 * DAY)]
)
def test_repeat_offenders_stay_out_longer(earlier, seconds):
    scene = Scene().running()
    scene.node_history = {"node-2": earlier, "node-0": 7}
    made = scene.anomaly(AnomalyKind.SLOW, 2, evict=True).plan()
    [entry] = scene.status.excluded_nodes
    assert (entry.until - entry.since, entry.count) == (timedelta(seconds=seconds), earlier + 1)
    assert f"stays away from it for {seconds:g} s" in told(made)[1]
    assert ("excluded" in told(made)[1]) == (earlier > 0)
    assert [each.excluded for each in scene.status.unsent_incidents] == [None, "SlowNode"]


def test_the_cap_never_shortens_an_exclusion():
    scene = Scene(recovery={"exclude_seconds": 100, "max_exclude_seconds": 10}).running()
    scene.node_history = {"node-2": 4}
    scene.anomaly(AnomalyKind.SLOW, 2, evict=True).plan()
    assert scene.status.excluded_nodes[0].until == scene.now + timedelta(seconds=100)


def test_suspicion_of_a_repeat_offender_lasts_longer():
    scene = Scene(recovery={"exclude_seconds": 100}).running()
    scene.node_history = {"node-1": 1}
    scene.anomaly(AnomalyKind.HANG, 1).plan()
    [suspected] = scene.status.suspected_nodes
    assert suspected.until == scene.now + timedelta(seconds=200)
    scene.later(199).plan()
    assert scene.status.suspected_nodes != []
    scene.later(1).plan()
    assert scene.status.suspected_nodes == []


def test_a_blocked_drain_of_an_excluded_node_is_told():
    scene = Scene().running()
    scene.drains = {"node-1": "eviction of default/web-0 is blocked", "node-0": "of no interest to this job"}
    scene.anomaly(AnomalyKind.SLOW, 1, evict=True).plan()
    condition = scene.condition("NodeDrained")
    assert (condition.status, condition.reason) == ("False", "DrainBlocked")
    assert "default/web-0" in condition.message
    assert "of no interest" not in condition.message
    scene.drains = {}
    scene.plan()
    assert scene.condition("NodeDrained").status == "True"


def test_waiting_for_a_node_names_those_that_are_ill():
    scene = Scene(workers=2, spares=0).running().node(7).node(8)
    scene.ill(1).plan()
    scene.without_pod(1).plan()
    scene.with_pods(1).pod(1, node=None, ready=False, phase=PodPhase.PENDING, reason="Unschedulable: 0/4 nodes")
    scene.pod(1, excluded_nodes=("node-1",)).plan()
    assert "node-1" in scene.condition("Schedulable").message
    assert created(scene.plan()) == []
