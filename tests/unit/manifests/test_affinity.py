from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_operator.manifests.affinity import merge_affinity

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def terms(affinity: dict[str, Any]) -> list[dict[str, Any]]:
    return affinity["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]


def matches(affinity: dict[str, Any], node: dict[str, str]) -> bool:
    """As the scheduler does it: terms are alternatives, the requirements of one are all needed, an empty one matches nothing."""

    def meets(requirement: dict[str, Any]) -> bool:
        is_in = node.get(requirement["key"]) in requirement["values"]
        return is_in if requirement["operator"] == "In" else not is_in

    if REQUIRED not in affinity.get("nodeAffinity", {}):
        return True
    return any(
        bool(term.get("matchExpressions")) and all(meets(item) for item in term["matchExpressions"])
        for term in terms(affinity)
    )


def test_without_wishes_and_exclusions_workers_only_prefer_to_be_apart() -> None:
    affinity = merge_affinity(None, "gpt", ())
    assert set(affinity) == {"podAntiAffinity"}
    assert set(affinity["podAntiAffinity"]) == {PREFERRED}
    (wish,) = affinity["podAntiAffinity"][PREFERRED]
    assert wish["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
    assert wish["podAffinityTerm"]["labelSelector"] == {"matchLabels": {"sternpost.dev/job": "gpt"}}


def test_excluded_nodes_are_sorted_and_named_once() -> None:
    affinity = merge_affinity({}, "gpt", ["b", "a", "b"])
    requirement = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["a", "b"]}
    assert terms(affinity) == [{"matchExpressions": [requirement]}]


def test_a_term_that_matches_nothing_still_does() -> None:
    given_affinity = {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{}]}}}
    assert terms(merge_affinity(given_affinity, "gpt", ["a"])) == [{}]


REQUIREMENT = st.fixed_dictionaries(
    {
        "key": st.sampled_from(["kubernetes.io/hostname", "zone"]),
        "operator": st.sampled_from(["In", "NotIn"]),
        "values": st.lists(st.sampled_from("abc"), min_size=1, max_size=2),
    }
)
TERM = st.fixed_dictionaries({"matchExpressions": st.lists(REQUIREMENT, max_size=2)})


@given(
    st.none() | st.lists(TERM, min_size=1, max_size=3),
    st.lists(st.sampled_from("abc"), max_size=3),
    st.sampled_from("abc"),
    st.sampled_from("abc"),
)
@settings(deadline=None, max_examples=200)
def test_a_node_is_eligible_when_the_template_accepts_it_and_it_is_not_excluded(
    wishes: list[dict[str, Any]] | None, excluded: list[str], host: str, zone: str
) -> None:
    before = {} if wishes is None else {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": wishes}}}
    node = {"kubernetes.io/hostname": host, "zone": zone}
    assert matches(merge_affinity(before, "gpt", excluded), node) == (matches(before, node) and host not in excluded)
