from __future__ import annotations

import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_operator.cluster.local.scheduler import HOSTNAME, Candidate, PlacedPod, place

JOB = {"sternpost.dev/job": "gpt"}


def excluding(*nodes: str) -> dict[str, Any]:
    terms = [{"matchExpressions": [{"key": HOSTNAME, "operator": "NotIn", "values": list(nodes)}]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    return {"metadata": {"labels": JOB}, "spec": {"affinity": {"nodeAffinity": required}}}


def nodes(*counts: int) -> list[Candidate]:
    mine = PlacedPod(JOB, same_job=True)
    return [Candidate(f"node-{i + 1}", pods=[mine] * count) for i, count in enumerate(counts)]


def test_empty_nodes_come_first_in_natural_order() -> None:
    assert place({}, nodes(*[0] * 12), workers=4).node == "node-1"
    assert place({}, nodes(1, *[0] * 11), workers=4).node == "node-2"
    assert place({}, nodes(*[1] * 9, 0, 0), workers=4).node == "node-10"


def test_spares_do_not_double_up() -> None:
    placement = place({}, nodes(1, 1, 1, 1, 1), workers=4)
    assert placement.node is None
    assert placement.message == "0 of 5 nodes can take it: 5 has a Pod of this job already"


def test_more_workers_than_nodes_spread_evenly() -> None:
    assert place({}, nodes(1, 1), workers=4).node == "node-1"
    assert place({}, nodes(2, 1), workers=4).node == "node-2"
    assert place({}, nodes(2, 2), workers=4).node is None


def test_excluded_and_dead_nodes_take_nothing() -> None:
    candidates = [Candidate("node-1"), Candidate("node-2", ready=False)]
    placement = place(excluding("node-1"), candidates, workers=1)
    assert placement.node is None
    assert placement.message == "0 of 2 nodes can take it: 1 excluded by node selector or affinity, 1 not ready"
    assert place({}, [], workers=1).message == "0 of 0 nodes can take it"


def test_selector_labels_and_operators() -> None:
    gpu = Candidate("node-2", labels={"gpu": "8", "zone": "a"})
    both = [Candidate("node-1"), gpu]
    assert place({"spec": {"nodeSelector": {"zone": "a"}}}, both, workers=1).node == "node-2"
    for operator, values, expected in (
        ("Exists", [], "node-2"),
        ("DoesNotExist", [], "node-1"),
        ("Gt", ["4"], "node-2"),
        ("Lt", ["4"], None),
        ("In", ["8"], "node-2"),
        ("NotIn", ["8"], "node-1"),
        ("Nonsense", [], None),
    ):
        term = {"matchExpressions": [{"key": "gpu", "operator": operator, "values": values}]}
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
        manifest = {"spec": {"affinity": {"nodeAffinity": required}}}
        assert place(manifest, both, workers=1).node == expected, operator


def test_preferred_nodes_win_among_equals() -> None:
    preference = {"matchExpressions": [{"key": HOSTNAME, "operator": "NotIn", "values": ["node-1"]}]}
    preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 10, "preference": preference}]}
    manifest = {"spec": {"affinity": {"nodeAffinity": preferred}}}
    assert place(manifest, nodes(0, 0), workers=1).node == "node-2"
    assert place(manifest, nodes(0, 1), workers=2).node == "node-1"


def test_required_anti_affinity_holds_whatever_the_number_of_workers() -> None:
    terms = [{"topologyKey": HOSTNAME, "labelSelector": {"matchLabels": JOB}}]
    anti = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    assert place({"spec": {"affinity": anti}}, nodes(1, 1), workers=4).node is None


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    count=st.integers(1, 8),
    workers=st.integers(1, 12),
    spares=st.integers(0, 4),
    dead=st.sets(st.integers(0, 7)),
    excluded=st.sets(st.integers(0, 7)),
)
def test_every_worker_finds_a_place_and_none_at_a_wrong_one(
    count: int, workers: int, spares: int, dead: set[int], excluded: set[int]
) -> None:
    placed: dict[str, int] = {}
    manifest = excluding(*(f"node-{i + 1}" for i in excluded)) if excluded else {"metadata": {}, "spec": {}}
    able = [f"node-{i + 1}" for i in range(count) if i not in dead and i not in excluded]
    for index in range(workers + spares):
        candidates = [
            Candidate(name, ready=i not in dead, pods=[PlacedPod(JOB, same_job=True)] * placed.get(name, 0))
            for i, name in enumerate(f"node-{i + 1}" for i in range(count))
        ]
        placement = place(manifest, candidates, workers=workers)
        assert (placement.node is None) == bool(placement.message)
        if placement.node is None:
            assert not able or index >= workers
        else:
            assert placement.node in able
            placed[placement.node] = placed.get(placement.node, 0) + 1
    if able:
        assert max(placed.values()) <= max(1, math.ceil(workers / len(able)))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["nodeAffinity", "podAntiAffinity", "matchExpressions", "key", "values", "operator", "weight"]
            )
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(affinity=json_values, selector=json_values)
def test_nonsense_does_not_raise(affinity: Any, selector: Any) -> None:
    place({"spec": {"affinity": affinity, "nodeSelector": selector}}, nodes(0, 1), workers=2)
