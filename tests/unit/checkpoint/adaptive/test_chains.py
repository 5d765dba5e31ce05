"""Chains of any ranks, in any order of commits: none ever loses a base, and none is longer than allowed."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_checkpoint.adaptive.chains import BaseView, may_build, pays, reachable
from sternpost_checkpoint.gc import collectable
from sternpost_checkpoint.lineage import Generation, Run

generations = st.builds(Generation, st.integers(0, 30), st.integers(1, 3))


@settings(max_examples=200)
@given(st.lists(generations, max_size=5), st.dictionaries(generations, st.lists(generations, max_size=3), max_size=15))
def test_reachable_is_closed_and_ends_for_any_graph(
    kept: list[Generation], parents: dict[Generation, list[Generation]]
) -> None:
    found = reachable(kept, lambda generation: parents.get(generation, []))
    assert set(kept) <= found
    for generation in found:
        assert set(parents.get(generation, [])) <= found
        assert generation in kept or any(generation in parents.get(child, []) for child in found)


@settings(max_examples=200)
@given(
    st.sets(generations, min_size=1, max_size=12),
    st.dictionaries(generations, st.lists(generations, max_size=3), max_size=12),
    st.integers(1, 4),
)
def test_a_collection_keeps_every_base(
    complete: set[Generation], parents: dict[Generation, list[Generation]], keep: int
) -> None:
    older = {child: [parent for parent in found if parent < child] for child, found in parents.items()}
    garbage = set(collectable(complete, [], [], keep, lambda generation: older.get(generation, [])))
    left = complete - garbage
    newest = sorted(complete, reverse=True)[:keep]
    assert set(newest) <= left
    for generation in left:
        assert not set(older.get(generation, [])) & garbage
        assert generation in newest or any(generation in older.get(child, []) for child in left)


@dataclass
class Rank:
    """What one rank knows."""

    base: Generation | None = None
    candidate: Generation | None = None
    stored: list[Generation] = field(default_factory=list)


@dataclass
class World:
    """A deliberately dumb storage: which ranks have stored what against which base, and what is complete."""

    ranks: list[Rank]
    keep: int
    cap: int
    parts: dict[Generation, dict[int, Generation | None]] = field(default_factory=dict)
    complete: dict[Generation, list[Generation]] = field(default_factory=dict)

    def chain(self, generation: Generation) -> int:
        return max((1 + self.chain(parent) for parent in self.complete[generation]), default=0)

    def save(self, number: int, *, looks: bool) -> None:
        """A rank stores its next generation; perhaps it has looked at what has become of the last one."""
        rank = self.ranks[number]
        generation = Generation((rank.stored[-1].step if rank.stored else 0) + 1, 1)
        if looks and rank.candidate in self.complete:
            rank.base = rank.candidate
        view = None
        if rank.base is not None and rank.base in self.complete:
            later = sum(1 for other in rank.stored if other > rank.base)
            view = BaseView(rank.base, self.chain(rank.base), later, on_line=True)
        decision = may_build(view, generation, max_chain=self.cap, keep=self.keep)
        self.parts.setdefault(generation, {})[number] = rank.base if decision.delta else None
        rank.stored.append(generation)
        rank.candidate = generation

    def commit(self, generation: Generation) -> None:
        parts = self.parts.get(generation, {})
        if len(parts) < len(self.ranks) or generation in self.complete:
            return
        parents = sorted({parent for parent in parts.values() if parent is not None})
        assert all(parent in self.complete for parent in parents), "a base was collected before its child's commit"
        self.complete[generation] = parents
        assert self.chain(generation) <= self.cap
        for garbage in collectable(self.complete, [], [Run(1, 0, "u", 1, "1-a")], self.keep, self.complete.__getitem__):
            del self.complete[garbage]
        for kept, needed in self.complete.items():
            assert set(needed) <= self.complete.keys(), kept


@settings(max_examples=300, deadline=None)
@given(
    ranks=st.integers(1, 3),
    keep=st.integers(1, 4),
    cap=st.integers(0, 4),
    moves=st.lists(st.tuples(st.sampled_from(["save", "commit"]), st.integers(0, 2), st.booleans()), max_size=80),
)
def test_no_order_of_saves_and_commits_loses_a_base(
    ranks: int, keep: int, cap: int, moves: list[tuple[str, int, bool]]
) -> None:
    world = World([Rank() for _ in range(ranks)], keep, cap)
    for move, number, looks in moves:
        if move == "save":
            world.save(number % ranks, looks=looks)
        else:
            waiting = sorted(world.parts.keys() - world.complete.keys())
            if waiting:
                world.commit(waiting[number % len(waiting)])


def test_reasons() -> None:
    base = Generation(10, 1)
    child = Generation(11, 1)

    def why(view: BaseView | None, generation: Generation = child, cap: int = 3) -> str:
        decision = may_build(view, generation, max_chain=cap, keep=2)
        assert not decision.delta
        return decision.reason

    assert why(None) == "no base in memory"
    assert why(BaseView(base, 3, 0, on_line=True)) == "the chain has 3 generations already"
    assert why(BaseView(base, 0, 2, on_line=True)) == "2 later generations wait for their commit"
    assert "not on the way" in why(BaseView(base, 0, 0, on_line=False))
    assert "not on the way" in why(BaseView(base, 0, 0, on_line=True), generation=base)
    assert why(BaseView(base, 0, 0, on_line=True), cap=0) == "the chain has 0 generations already"
    assert may_build(BaseView(base, 2, 1, on_line=True), child, max_chain=3, keep=2).delta
    assert pays(1000, 200).reason == "deltas save 20%"
    assert not pays(1000, 5).delta
    assert not pays(0, 0).delta
