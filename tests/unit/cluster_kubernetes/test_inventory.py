from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sternpost_operator.cluster.kubernetes.entries import Entry
from sternpost_operator.cluster.kubernetes.inventory import Inventory
from sternpost_operator.cluster.kubernetes.paths import NODES, PODS, TRAINING_JOBS
from sternpost_operator.cluster.kubernetes.shelf import Shelf

GPT = frozenset({("team", "gpt")})


def entry(name: str, uid: str, version: int) -> Entry:
    return Entry("team", name, uid, version)


@given(st.permutations(range(6)))
def test_the_newest_version_wins_in_whatever_order_they_come(order: list[int]) -> None:
    shelf: Shelf[Entry] = Shelf()
    for version in order:
        shelf.put(entry("a", "u", version))
    known = shelf.get("team", "a")
    assert known is not None
    assert known.version == 5


def test_what_is_gone_does_not_come_back_with_a_late_answer() -> None:
    shelf: Shelf[Entry] = Shelf()
    shelf.put(entry("a", "u1", 1))
    assert shelf.drop("team", "a", "u1") is not None
    assert not shelf.put(entry("a", "u1", 2))
    assert shelf.put(entry("a", "u2", 3))
    assert shelf.drop("team", "a", "u1") is None, "another object has the name"
    assert len(shelf) == 1


def test_a_successor_of_the_name_replaces_and_its_predecessor_stays_gone() -> None:
    shelf: Shelf[Entry] = Shelf(lambda each: (each.namespace, "all"))
    shelf.put(entry("a", "u1", 1))
    shelf.put(entry("a", "u2", 5))
    assert not shelf.put(entry("a", "u1", 9))
    assert [each.uid for each in shelf.of(("team", "all"))] == ["u2"]


def test_a_list_takes_away_what_it_does_not_have_and_was_known_by_then() -> None:
    shelf: Shelf[Entry] = Shelf()
    for name, version in (("a", 1), ("b", 2), ("c", 9)):
        shelf.put(entry(name, name, version))
    gone = shelf.keep_only("team", {"a"}, 5)
    assert [each.name for each in gone] == ["b"], "c is newer than the list"
    assert shelf.keep_only("elsewhere", set(), 99) == []
    assert {each.name for each in shelf} == {"a", "c"}


def node(name: str, version: int, *, ready: bool = True, heartbeat: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    condition = {
        "type": "Ready",
        "status": str(ready),
        "lastHeartbeatTime": heartbeat,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    return {
        "metadata": {"name": name, "uid": name, "resourceVersion": str(version)},
        "status": {"conditions": [condition]},
    }


def test_whom_a_change_concerns(job_manifest, pod_manifest) -> None:
    inventory = Inventory()
    assert inventory.see(TRAINING_JOBS, job_manifest()) == GPT
    assert inventory.see(TRAINING_JOBS, job_manifest()) == frozenset(), "seen before"
    assert inventory.see(PODS, pod_manifest(version=1)) == GPT
    assert inventory.see(PODS, pod_manifest(version=2)) == frozenset(), "nothing that a decision looks at"
    assert inventory.see(PODS, pod_manifest(version=3, phase="Failed")) == GPT
    assert inventory.see(NODES, node("node-1", 4)) == GPT
    later = node("node-1", 5, heartbeat="2026-01-01T00:05:00Z")
    assert inventory.see(NODES, later) == frozenset(), "a heartbeat is no news"
    assert inventory.see(NODES, node("node-1", 6, ready=False)) == GPT
    assert inventory.see(NODES, node("node-2", 7)) == frozenset(), "nobody is there"
    assert inventory.lose(PODS, "team", "gpt-0", "uid-of-gpt-0") == GPT
    assert inventory.see(NODES, node("node-1", 8)) == frozenset()
    assert inventory.relist(TRAINING_JOBS, None, [], 100) == GPT
    assert inventory.jobs.get("team", "gpt") is None


def test_views_of_nodes_are_shared_until_one_changes() -> None:
    inventory = Inventory()
    inventory.see(NODES, node("node-1", 1))
    first = inventory.node_views()
    assert inventory.node_views() is first
    inventory.see(NODES, node("node-1", 2, ready=False))
    assert inventory.node_views() is not first


def test_things_that_have_nothing_to_do_with_jobs_are_left_out(pod_manifest) -> None:
    inventory = Inventory()
    foreign = pod_manifest()
    del foreign["metadata"]["labels"]["sternpost.dev/job"]
    assert inventory.see(PODS, foreign) == frozenset()
    assert len(inventory.pods) == 0
