"""The SQLite store against a dict that does the same in the simplest way."""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sternpost_memory.consolidation.deterministic import DeterministicEngine
from sternpost_memory.consolidation.step import consolidate_next
from sternpost_memory.errors import KeyReused, StoreConflict
from sternpost_memory.model import JobState, NewObservation
from sternpost_memory.store.base import FactQuery
from sternpost_memory.store.sqlite import SqliteStore

SPACES = st.sampled_from(["a", "b"])
OBSERVATIONS = st.lists(
    st.builds(
        NewObservation,
        text=st.sampled_from(["alpha", "beta gamma", "nul\x00 \r\n line", "émoji 🦜"]),
        occurred_at=st.none() | st.floats(0, 2000),
        source=st.sampled_from(["", "operator"]),
        entities=st.lists(st.sampled_from(["node/1", "node/2", "job/x"]), min_size=1, max_size=3),
        attributes=st.dictionaries(st.sampled_from(["cause", "state"]), st.sampled_from(["x", "y", 1, True])),
    ),
    min_size=1,
    max_size=4,
)


class StoreMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.store = SqliteStore(self.folder / "m.db")
        self.log: dict[str, list[tuple[NewObservation, float]]] = defaultdict(list)
        self.covered: dict[str, int] = defaultdict(int)
        self.keys: dict[tuple[str, str], tuple[bytes, list[int]]] = {}
        self.jobs: dict[str, tuple[str, int]] = {}
        self.now = 1000.0

    @rule(space=SPACES, observations=OBSERVATIONS, key=st.none() | st.sampled_from("kl"), body=st.sampled_from("xy"))
    def append(self, space: str, observations: list[NewObservation], key: str | None, body: str) -> None:
        self.now += 1
        request = body.encode()
        earlier = self.keys.get((space, key)) if key else None
        if earlier and earlier[0] != request:
            with pytest.raises(KeyReused):
                self.store.append(space, observations, now=self.now, idempotency_key=key, request_hash=request)
            return
        done = self.store.append(space, observations, now=self.now, idempotency_key=key, request_hash=request)
        if earlier:
            assert done.replayed
            assert list(done.seqs) == earlier[1]
            return
        assert not done.replayed
        self.log[space] += [(observation, self.now) for observation in observations]
        last = len(self.log[space])
        assert list(done.seqs) == list(range(last - len(observations) + 1, last + 1))
        self.jobs[done.job] = (space, last)
        if key:
            self.keys[space, key] = (request, list(done.seqs))

    @rule(space=SPACES, limit=st.integers(1, 5))
    def consolidate(self, space: str, limit: int) -> None:
        done = consolidate_next(self.store, DeterministicEngine(), space, now=self.now, limit=limit)
        assert done == min(limit, len(self.log[space]) - self.covered[space])
        self.covered[space] += done

    @rule(space=SPACES)
    def conflict(self, space: str) -> None:
        engine = DeterministicEngine()
        batch = self.store.batch(space, limit=1)
        if not batch.observations:
            return
        routes = engine.route(batch, ())
        change = engine.consolidate(self.store.base(batch, {t for ts in routes.values() for t in ts}), routes)
        self.store.commit(change, now=self.now)
        self.covered[space] += 1
        with pytest.raises(StoreConflict):
            self.store.commit(change, now=self.now)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = SqliteStore(self.folder / "m.db")

    @rule(space=SPACES)
    def rebuild(self, space: str) -> None:
        self.store.rebuild(space, DeterministicEngine())

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "store"):
            return
        for space, log in self.log.items():
            kept = self.store.observations(space, after=0, limit=1000)
            assert [item.seq for item in kept] == list(range(1, len(log) + 1))
            for item, (new, received_at) in zip(kept, log, strict=True):
                assert item.model_dump(exclude={"seq", "received_at"}) == new.model_dump()
                assert item.received_at == received_at
            self.agrees_on_topics(space, kept[: self.covered[space]])
            assert self.store.last_seq(space) == len(log)
        for job, (space, last) in self.jobs.items():
            found = self.store.job(job)
            assert found
            assert (found.state is JobState.DONE) == (self.covered[space] >= last)
        waiting = {s: len(log) - self.covered[s] for s, log in self.log.items() if len(log) > self.covered[s]}
        assert {item.space: item.count for item in self.store.buffers()} == waiting
        for item in self.store.buffers():
            rest = self.log[item.space][self.covered[item.space] :]
            assert item.size == sum(len(new.text.encode()) for new, _ in rest)
            assert item.oldest_at == rest[0][1]

    def agrees_on_topics(self, space: str, covered: list[Any]) -> None:
        members: dict[str, list[int]] = defaultdict(list)
        slots: dict[tuple[str, str], list[tuple[float, int, Any]]] = defaultdict(list)
        for item in covered:
            for entity in dict.fromkeys(item.entities):
                members[entity].append(item.seq)
            for attribute, value in item.attributes.items():
                slots[item.entities[0], attribute].append((item.event_time, item.seq, value))
        topics = self.store.topics(space, after="", limit=1000)
        assert {topic.id: topic.sources for topic in topics} == {topic: len(seqs) for topic, seqs in members.items()}
        for topic, seqs in members.items():
            versions = self.store.topic_versions(space, topic, before=None, limit=1000)
            assert sorted(seq for version in versions for seq in version.observations) == seqs
            assert [version.version for version in versions] == list(range(len(versions), 0, -1))
        current = self.store.facts(space, FactQuery(), after=None, limit=1000)
        assert {(f.entity, f.attribute): (f.valid_from, f.seq, f.value) for f in current} == {
            slot: max(values, key=lambda value: value[:2]) for slot, values in slots.items()
        }
        for (entity, attribute), values in slots.items():
            query = FactQuery(entity=entity, attribute=attribute, history=True)
            history = self.store.facts(space, query, after=None, limit=1000)
            assert [(f.valid_from, f.seq, f.value) for f in history] == sorted(values, key=lambda value: value[:2])

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)


StoreMachine.TestCase.settings = settings(
    deadline=None, max_examples=25, stateful_step_count=25, suppress_health_check=[HealthCheck.too_slow]
)
test_agrees_with_the_model = StoreMachine.TestCase


def test_batches_do_not_change_what_a_document_says(
    tmp_path: Path, drain: Callable[..., None], projection: Callable[..., Any]
) -> None:
    observations = [
        NewObservation(
            text=f"event {n}", occurred_at=float(n * 7 % 30), entities=[f"node/{n % 3}"], attributes={"s": n}
        )
        for n in range(40)
    ]
    results = []
    for limit in (1, 7, 512):
        store = SqliteStore(tmp_path / f"{limit}.db")
        store.append("a", observations, now=100.0)
        drain(store, "a", limit=limit)
        results.append(projection(store, "a"))
        store.close()
    for result in results[1:]:
        assert result["facts"] == results[0]["facts"]
        for topic, first in zip(result["topics"], results[0]["topics"], strict=True):
            # Only the version tells in how many steps it came about.
            assert topic.document.replace(f"version: {topic.version}", "") == first.document.replace(
                f"version: {first.version}", ""
            )


def test_pages(store: SqliteStore, drain: Callable[..., None]) -> None:
    store.append("a", [NewObservation(text="x", entities=[f"n/{n}"], attributes={"k": n}) for n in range(9)], now=1.0)
    drain(store, "a")
    assert [topic.id for topic in store.topics("a", after="n/2", limit=3)] == ["n/3", "n/4", "n/5"]
    assert [topic.id for topic in store.topics("a", after="", limit=9, prefix="n/8")] == ["n/8"]
    assert store.topics("b", after="", limit=9) == []
    page = store.facts("a", FactQuery(attribute="k"), after=("n/2", "k", 1.0, 3), limit=2)
    assert [fact.entity for fact in page] == ["n/3", "n/4"]


def test_what_held_at_a_time(store: SqliteStore, drain: Callable[..., None]) -> None:
    for at, value in [(10, "a"), (30, "c"), (20, "b")]:
        store.append(
            "a",
            [NewObservation(text="x", occurred_at=at, entities=["n"], attributes={"k": value})],
            now=100.0,
        )
        drain(store, "a")
    held = {
        at: [fact.value for fact in store.facts("a", FactQuery(at=at), after=None, limit=9)]
        for at in (5, 10, 19.5, 20, 25, 99)
    }
    assert held == {5: [], 10: ["a"], 19.5: ["a"], 20: ["b"], 25: ["b"], 99: ["c"]}


def test_an_empty_batch_is_a_mistake(store: SqliteStore) -> None:
    with pytest.raises(ValueError, match="at least one"):
        store.append("a", [], now=1.0)
