"""Cordons on a node's own evidence, and what becomes of them."""

from __future__ import annotations

import asyncio
import copy

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from node_world import World

from sternpost_operator.node_keeper import marks


def reconcile(world: World, times: int = 1):
    kept = None
    for _ in range(times):
        kept = asyncio.run(world.reconcile())
    return kept


def test_a_node_with_evidence_is_cordoned_and_tainted_and_says_why():
    world = World()
    world.api.nodes["node-3"]["spec"]["taints"] = [{"key": "gpu", "effect": "NoSchedule", "timeAdded": "x"}]
    world.condition("node-3")
    kept = reconcile(world)
    node = world.api.nodes["node-3"]
    assert node["spec"] == {
        "unschedulable": True,
        "taints": [
            {"key": "gpu", "effect": "NoSchedule", "timeAdded": "x"},
            {"key": "sternpost.dev/unhealthy", "effect": "NoSchedule"},
        ],
    }
    annotations = node["metadata"]["annotations"]
    assert annotations["owner"] == "somebody"
    assert annotations["sternpost.dev/cordoned-by"] == "sternpost-operator"
    assert annotations["sternpost.dev/cordoned-at"] == "2025-01-01T00:00:00+00:00"
    assert "GpuUnhealthy=True (Xid79)" in annotations["sternpost.dev/cordon-reason"]
    assert kept.cordoned == {"node-3"}
    assert world.cordons == ["GpuUnhealthy"]
    [event] = world.api.events
    assert (event["reason"], event["type"]) == ("SternpostCordoned", "Warning")
    assert event["involvedObject"]["name"] == "node-3"


def test_nothing_is_asked_of_the_server_while_all_is_as_it_should_be():
    world = World()
    assert reconcile(world, 3).next_in is None
    world.condition("node-3")
    reconcile(world)
    world.api.requests.clear()
    reconcile(world, 3)
    assert world.api.requests == []


def test_conditions_that_are_no_evidence_cordon_nobody():
    world = World()
    world.condition("node-1", "DiskPressure")
    world.condition("node-2", bad=False)
    reconcile(world)
    assert world.cordoned == set()


def test_without_the_permission_nothing_is_cordoned():
    world = World(cordon=False)
    world.condition("node-1")
    reconcile(world)
    assert world.cordoned == set()


def test_it_is_given_back_when_the_evidence_has_been_gone_for_a_while():
    world = World()
    before = copy.deepcopy(world.api.nodes["node-3"])
    world.condition("node-3")
    reconcile(world)
    world.condition("node-3", bad=False)
    world.clock = 100
    assert reconcile(world).next_in == 600
    world.clock = 699
    reconcile(world)
    assert world.cordoned == world.tainted == {"node-3"}
    world.clock = 700
    assert reconcile(world).cordoned == frozenset()
    after = world.api.nodes["node-3"]
    assert (after["spec"], after["metadata"]["annotations"]) == (before["spec"], before["metadata"]["annotations"])
    assert world.reasons() == ["SternpostCordoned", "SternpostUncordoned"]


def test_evidence_that_comes_back_begins_the_wait_anew():
    world = World()
    world.condition("node-3")
    reconcile(world)
    for at, bad in ((100, False), (500, True), (900, False)):
        world.clock = at
        world.condition("node-3", bad=bad)
        reconcile(world)
    world.clock = 1499
    reconcile(world)
    assert world.cordoned == {"node-3"}
    world.clock = 1500
    reconcile(world)
    assert world.cordoned == set()


def test_it_stays_while_a_job_stays_away_because_of_it():
    world = World()
    world.condition("node-3")
    world.held = {"node-3"}
    reconcile(world)
    world.condition("node-3", bad=False)
    world.clock = 10_000
    assert reconcile(world, 2).next_in is None
    assert world.cordoned == {"node-3"}
    world.held = set()
    world.clock += 600
    reconcile(world)
    assert world.cordoned == set()


def test_what_a_restarted_operator_does_is_the_same():
    world = World()
    world.condition("node-3")
    reconcile(world)
    world.restart()
    world.condition("node-3", bad=False)
    world.clock = 100
    reconcile(world)
    world.restart()
    world.clock = 700
    reconcile(world)
    assert world.cordoned == set()


def test_a_cordon_that_somebody_else_made_is_theirs():
    world = World()
    world.cordon("node-3")
    world.condition("node-3")
    reconcile(world, 2)
    assert world.tainted == set()
    world.condition("node-3", bad=False)
    reconcile(world)
    world.clock = 700
    reconcile(world)
    assert world.cordoned == {"node-3"}
    assert "sternpost.dev/cordon-overruled" not in world.api.nodes["node-3"]["metadata"]["annotations"]
    assert world.api.events == []


def test_who_uncordons_a_node_is_obeyed():
    world = World()
    world.condition("node-3")
    reconcile(world)
    world.uncordon("node-3")
    assert reconcile(world).cordoned == frozenset()
    assert world.cordoned == world.tainted == set()
    assert world.reasons()[-1] == "SternpostOverruled"
    world.clock = 100_000
    reconcile(world, 2)
    assert world.cordoned == set()
    # Another kind of evidence is another matter.
    world.condition("node-3", "KernelDeadlock")
    reconcile(world)
    assert world.cordoned == {"node-3"}


def test_who_uncordons_somebody_elses_cordon_is_obeyed_too():
    world = World()
    world.cordon("node-3")
    world.condition("node-3")
    reconcile(world)
    world.uncordon("node-3")
    reconcile(world, 2)
    assert world.cordoned == set()


def test_who_removes_the_taint_takes_the_cordon_over():
    world = World()
    world.condition("node-3")
    reconcile(world)
    world.spec("node-3")["taints"] = []
    world.api._renew(world.api.nodes["node-3"])
    reconcile(world)
    world.condition("node-3", bad=False)
    world.clock = 10_000
    reconcile(world)
    world.clock = 20_000
    reconcile(world)
    assert world.cordoned == {"node-3"}


def test_after_a_repair_the_same_kind_of_evidence_is_new():
    world = World()
    world.condition("node-3")
    reconcile(world)
    world.uncordon("node-3")
    reconcile(world)
    world.condition("node-3", bad=False)
    reconcile(world)
    world.clock = 600
    reconcile(world)
    world.condition("node-3")
    reconcile(world)
    assert world.cordoned == {"node-3"}


@pytest.mark.parametrize(("nodes", "share", "cordoned"), [(20, 0.1, 2), (3, 0.1, 1), (10, 0.5, 5), (1, 0.1, 1)])
def test_never_more_than_a_share_is_cordoned(nodes, share, cordoned):
    world = World(nodes, max_share=share)
    for number in range(nodes):
        world.condition(f"node-{number}")
    kept = reconcile(world, 3)
    assert len(world.cordoned) == cordoned
    assert len(kept.withheld) == nodes - cordoned
    assert world.reasons().count("SternpostCordonWithheld") == nodes - cordoned


def test_cordons_of_others_count_towards_the_share():
    world = World(20, max_share=0.1)
    world.cordon("node-0")
    world.cordon("node-1")
    world.condition("node-3")
    assert reconcile(world).withheld == {"node-3"}
    world.uncordon("node-0")
    reconcile(world)
    assert world.cordoned == {"node-1", "node-3"}


def test_an_old_observation_does_no_harm():
    world = World()
    world.condition("node-3")
    stale = world.kept()
    reconcile(world)
    world.uncordon("node-3")
    reconcile(world)
    asyncio.run(world.reconcile(stale))
    assert world.cordoned == set()


def test_a_change_in_between_is_a_conflict_and_tried_again():
    world = World()
    world.condition("node-3")
    world.api.meddler = lambda: world.cordon("node-3")
    kept = reconcile(world)
    assert world.tainted == set()
    assert kept.next_in == 5
    reconcile(world)
    assert world.tainted == set()
    assert "sternpost.dev/cordon-overruled" in world.api.nodes["node-3"]["metadata"]["annotations"]


def test_a_server_that_does_not_answer_is_tried_again():
    world = World()
    world.condition("node-3")
    world.api.down = True
    kept = reconcile(world)
    assert (kept.cordoned, kept.next_in) == (frozenset(), 5)
    world.api.down = False
    assert reconcile(world).cordoned == {"node-3"}


def test_a_node_that_is_gone_is_no_error():
    world = World()
    world.condition("node-3")
    seen = world.kept()
    del world.api.nodes["node-3"]
    asyncio.run(world.reconcile(seen))


def test_damaged_annotations_make_the_cordon_somebody_elses():
    read = marks.read({"sternpost.dev/cordoned-by": "sternpost-operator", "sternpost.dev/cordoned-at": "yesterday"})
    assert not read.ours
    assert not marks.read({"sternpost.dev/cordoned-by": "me", "sternpost.dev/cordoned-at": "2025-01-01T00:00:00Z"}).ours


class CordonMachine(RuleBasedStateMachine):
    """Conditions, people and lost answers in any order."""

    NODES = 6

    @initialize(share=st.sampled_from([0.1, 0.34, 0.5]))
    def begin(self, share):
        self.world = World(self.NODES, max_share=share, uncordon_seconds=60)
        self.theirs: set[str] = set()
        """Nodes that people have cordoned and not uncordoned since."""
        self.freed: set[str] = set()
        """Nodes that people have uncordoned while the same evidence stands."""
        self.evidence: set[str] = set()

    def limit(self):
        return max(1, int(self.world.settings.max_share * self.NODES))

    def run(self):
        before = set(self.world.cordoned)
        asyncio.run(self.world.reconcile())
        new = self.world.cordoned - before
        assert new <= self.evidence, "cordoned without evidence"
        assert not new & self.freed, "cordoned again for what people had dealt with"
        if new:
            assert len(self.world.cordoned) <= self.limit(), "too many at once"
        assert self.theirs <= self.world.cordoned, "somebody else's cordon was undone"
        assert self.world.tainted <= self.world.cordoned
        # Once more without any change: nothing more to do.
        requests = len(self.world.api.requests)
        asyncio.run(self.world.reconcile())
        assert len(self.world.api.requests) == requests

    @rule(number=st.integers(0, NODES - 1), bad=st.booleans())
    def condition_changes(self, number, bad):
        name = f"node-{number}"
        self.world.condition(name, bad=bad)
        (self.evidence.add if bad else self.evidence.discard)(name)
        self.run()

    @rule(number=st.integers(0, NODES - 1))
    def somebody_cordons(self, number):
        name = f"node-{number}"
        if name not in self.world.cordoned:
            self.world.cordon(name)
            self.theirs.add(name)
        self.run()

    @rule(number=st.integers(0, NODES - 1))
    def somebody_uncordons(self, number):
        name = f"node-{number}"
        if name in self.world.cordoned:
            self.world.uncordon(name)
            self.theirs.discard(name)
            if name in self.evidence:
                self.freed.add(name)
        self.run()

    @rule(seconds=st.sampled_from([10, 61]))
    def time_passes(self, seconds):
        self.world.clock += seconds
        self.run()
        if seconds > 60:
            self.freed &= self.evidence

    @rule(number=st.integers(0, NODES - 1), held=st.booleans())
    def job_stays_away(self, number, held):
        (self.world.held.add if held else self.world.held.discard)(f"node-{number}")
        self.run()

    @rule()
    def operator_restarts(self):
        self.world.restart()
        self.run()

    @rule(down=st.booleans())
    def server_is_away(self, down):
        self.world.api.down = down
        asyncio.run(self.world.reconcile())
        self.world.api.down = False
        self.run()

    @invariant()
    def nothing_of_ours_is_left_where_nothing_is_wrong(self):
        if not hasattr(self, "world"):
            return
        for name in self.world.tainted:
            assert marks.read(self.world.api.nodes[name]["metadata"]["annotations"]).ours

    def teardown(self):
        if not hasattr(self, "world"):
            return
        self.world.held.clear()
        for number in range(self.NODES):
            self.world.condition(f"node-{number}", bad=False)
        self.evidence.clear()
        self.run()
        self.world.clock += 61
        self.run()
        assert self.world.cordoned == self.theirs, "exactly its own is undone"
        assert self.world.tainted == set()
        for node in self.world.api.nodes.values():
            assert node["metadata"]["annotations"] == {"owner": "somebody"}


CordonMachine.TestCase.settings = settings(
    max_examples=80, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestCordonMachine = CordonMachine.TestCase
