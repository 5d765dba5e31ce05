from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sternpost_memory.consolidation.slots import facts_of, merge_current, supersede
from sternpost_memory.model import Fact, Observation


def stated(seq: int, at: float, value: str) -> Fact:
    observation = Observation(
        seq=seq, text="x", received_at=1000.0, occurred_at=at, entities=["n"], attributes={"a": value}
    )
    return facts_of(observation)[0]


def test_the_newest_wins_and_the_loser_keeps_its_end() -> None:
    first, second = stated(1, 10, "x"), stated(2, 20, "y")
    old, new = supersede([first, second], [])
    assert (old.value, old.valid_from, old.valid_to, old.superseded_by) == ("x", 10, 20, new.id)
    assert (new.value, new.valid_to, new.superseded_by) == ("y", None, None)


def test_a_late_arrival_finds_its_place_in_the_past() -> None:
    current = stated(1, 20, "y")
    (late,) = supersede([stated(2, 10, "x")], [current])
    assert (late.value, late.valid_to, late.superseded_by) == ("x", 20, current.id)


def test_stating_a_value_again_is_not_dropped() -> None:
    first = stated(1, 10, "x")
    changed = supersede([stated(2, 20, "x")], [first])
    assert [(fact.id, fact.superseded_by) for fact in changed] == [("1.0", "2.0"), ("2.0", None)]


def test_of_one_moment_the_later_in_the_log_wins() -> None:
    changed = supersede([stated(2, 10, "b"), stated(1, 10, "a")], [])
    assert merge_current([], changed)[0].value == "b"


def test_attributes_without_an_entity_make_no_fact() -> None:
    assert facts_of(Observation(seq=1, text="x", received_at=1.0, attributes={"a": 1})) == []


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from("ab")), min_size=1, max_size=25),
    st.lists(st.integers(1, 4), min_size=25, max_size=25),
)
def test_any_batches_give_the_history_that_sorting_gives(facts: list[tuple[int, str]], sizes: list[int]) -> None:
    every = [stated(seq, at, value) for seq, (at, value) in enumerate(facts, start=1)]
    kept: dict[str, Fact] = {}
    rest = list(every)
    for size in sizes:
        batch, rest = rest[:size], rest[size:]
        neighbours = []
        for fact in batch:
            ordered = sorted(kept.values(), key=lambda item: item.order)
            neighbours += [item for item in ordered if item.order < fact.order][-1:]
            neighbours += [item for item in ordered if item.order > fact.order][:1]
        kept |= {fact.id: fact for fact in supersede(batch, neighbours)}
    covered = sorted((fact for fact in every if fact.id in kept), key=lambda item: item.order)
    for fact, follower in zip(covered, [*covered[1:], None], strict=True):
        assert kept[fact.id].superseded_by == (follower.id if follower else None)
        assert kept[fact.id].valid_to == (follower.valid_from if follower else None)
