"""What every store of the memory service must do. Subclass `StoreConformance` and say where the store is kept."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from sternpost_memory.consolidation.deterministic import DeterministicEngine
from sternpost_memory.consolidation.engine import Change
from sternpost_memory.consolidation.step import consolidate_next
from sternpost_memory.errors import KeyReused, StoreConflict
from sternpost_memory.model import JobState, NewObservation
from sternpost_memory.retrieval.search import BehindError, search
from sternpost_memory.store.base import CandidateKind, FactQuery, Store

NOW = 1_800_000_000.0
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


class Place(Protocol):
    """Where a store keeps its data. Every `open` gives a store on the same data, as another process would have it."""

    def open(self) -> Store: ...

    def damage(self, store: Store, space: str) -> None:
        """Spoil what is computed from the log."""

    def close(self) -> None: ...


def assert_nothing_lost(store: Store, space: str, acknowledged: dict[int, str]) -> None:
    """The log is what was acknowledged (text by seq), each once, in the topics, too, and they follow from it."""
    log = {item.seq: item.text for item in store.observations(space, after=0, limit=100_000)}
    assert log == acknowledged
    assert len(set(log.values())) == len(log)
    drain(store, space)
    grown = projection(store, space)
    held = [seq for versions in grown["versions"].values() for version in versions for seq in version.observations]
    assert sorted(held) == sorted(log)
    store.rebuild(space, DeterministicEngine())
    assert projection(store, space) == grown


def drain(store: Store, space: str, *, now: float = NOW, limit: int = 512) -> None:
    """Consolidate until the buffer is empty."""
    while consolidate_next(store, DeterministicEngine(), space, now=now, limit=limit):
        pass


def projection(store: Store, space: str) -> dict[str, Any]:
    """Everything that is computed from a space's log, as one comparable value."""
    topics = store.topics(space, after="", limit=10_000)
    return {
        "topics": topics,
        "versions": {topic.id: store.topic_versions(space, topic.id, before=None, limit=10_000) for topic in topics},
        "facts": store.facts(space, FactQuery(history=True), after=None, limit=10_000),
    }


def planned(store: Store, space: str, limit: int = 512) -> Change:
    """The next consolidation, computed and not committed."""
    engine = DeterministicEngine()
    batch = store.batch(space, limit=limit)
    routes = engine.route(batch, ())
    return engine.consolidate(store.base(batch, {topic for topics in routes.values() for topic in topics}), routes)


class StoreMachine(RuleBasedStateMachine):
    """A store, opened twice as by two replicas, against a dict that does the same in the simplest way."""

    def __init__(self, new_place: Callable[[], Place]) -> None:
        super().__init__()
        self.place = new_place()
        self.stores = [self.place.open(), self.place.open()]
        self.log: dict[str, list[tuple[NewObservation, float]]] = defaultdict(list)
        self.covered: dict[str, int] = defaultdict(int)
        self.keys: dict[tuple[str, str], tuple[bytes, list[int]]] = {}
        self.jobs: dict[str, tuple[str, int]] = {}
        self.now = 1000.0

    @initialize()
    def begin(self) -> None:
        assert self.stores[0].spaces() == []

    @rule(
        replica=st.integers(0, 1),
        space=SPACES,
        observations=OBSERVATIONS,
        key=st.none() | st.sampled_from("kl"),
        body=st.sampled_from("xy"),
    )
    def append(self, replica: int, space: str, observations: list[NewObservation], key: str | None, body: str) -> None:
        self.now += 1
        store = self.stores[replica]
        request = body.encode()
        earlier = self.keys.get((space, key)) if key else None
        if earlier and earlier[0] != request:
            with pytest.raises(KeyReused):
                store.append(space, observations, now=self.now, idempotency_key=key, request_hash=request)
            return
        done = store.append(space, observations, now=self.now, idempotency_key=key, request_hash=request)
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

    @rule(replica=st.integers(0, 1), space=SPACES)
    def ask_for_a_consolidation(self, replica: int, space: str) -> None:
        job = self.stores[replica].request_consolidation(space, now=self.now)
        self.log[space]
        self.jobs[job.id] = (space, len(self.log[space]))

    @rule(replica=st.integers(0, 1), space=SPACES, limit=st.integers(1, 5))
    def consolidate(self, replica: int, space: str, limit: int) -> None:
        done = consolidate_next(self.stores[replica], DeterministicEngine(), space, now=self.now, limit=limit)
        assert done == min(limit, self.waiting(space))
        self.covered[space] += done

    @rule(space=SPACES, first=st.integers(1, 3), second=st.integers(1, 3))
    def conflict(self, space: str, first: int, second: int) -> None:
        """Two replicas plan the same; the second one is refused, whole."""
        if not self.waiting(space):
            return
        plans = [planned(self.stores[0], space, first), planned(self.stores[1], space, second)]
        self.stores[0].commit(plans[0], now=self.now)
        self.covered[space] = plans[0].last_seq
        for store, plan in ((self.stores[1], plans[1]), (self.stores[0], plans[0])):
            with pytest.raises(StoreConflict):
                store.commit(plan, now=self.now)

    @rule(replica=st.integers(0, 1))
    def reopen(self, replica: int) -> None:
        self.stores[replica].close()
        self.stores[replica] = self.place.open()

    @rule(replica=st.integers(0, 1), space=SPACES)
    def rebuild(self, replica: int, space: str) -> None:
        self.stores[replica].rebuild(space, DeterministicEngine())

    def waiting(self, space: str) -> int:
        return len(self.log.get(space, ())) - self.covered[space]

    @invariant()
    def agrees(self) -> None:
        for store in self.stores:
            self.agrees_on_all(store)

    def agrees_on_all(self, store: Store) -> None:
        assert store.spaces() == sorted(self.log)
        for space, log in self.log.items():
            kept = store.observations(space, after=0, limit=1000)
            assert [item.seq for item in kept] == list(range(1, len(log) + 1))
            for item, (new, received_at) in zip(kept, log, strict=True):
                assert item.model_dump(exclude={"seq", "received_at"}) == new.model_dump()
                assert item.received_at == received_at
            self.agrees_on_topics(store, space, kept[: self.covered[space]])
            assert store.last_seq(space) == len(log)
            found = store.search(space, ["alpha"], limit=1000)
            assert found.seq == len(log)
            seen = {seq for item in found.candidates if item.kind == "observation" for seq in item.observations}
            assert seen == {number for number, (new, _) in enumerate(log, start=1) if new.text == "alpha"}
        for job, (space, last) in self.jobs.items():
            state = store.job(job)
            assert state
            assert (state.space, state.last_seq) == (space, last)
            assert (state.state is JobState.DONE) == (self.covered[space] >= last)
        waiting = {s: len(log) - self.covered[s] for s, log in self.log.items() if len(log) > self.covered[s]}
        assert {item.space: item.count for item in store.buffers()} == waiting
        for item in store.buffers():
            rest = self.log[item.space][self.covered[item.space] :]
            assert item.size == sum(len(new.text.encode()) for new, _ in rest)
            assert item.oldest_at == rest[0][1]

    def agrees_on_topics(self, store: Store, space: str, covered: list[Any]) -> None:
        members: dict[str, list[int]] = defaultdict(list)
        slots: dict[tuple[str, str], list[tuple[float, int, Any]]] = defaultdict(list)
        for item in covered:
            for entity in dict.fromkeys(item.entities):
                members[entity].append(item.seq)
            for attribute, value in item.attributes.items():
                slots[item.entities[0], attribute].append((item.event_time, item.seq, value))
        topics = store.topics(space, after="", limit=1000)
        assert {topic.id: topic.sources for topic in topics} == {topic: len(seqs) for topic, seqs in members.items()}
        assert all(f"\nversion: {topic.version}\n" in topic.document for topic in topics)
        for topic, seqs in members.items():
            versions = store.topic_versions(space, topic, before=None, limit=1000)
            assert sorted(seq for version in versions for seq in version.observations) == seqs
            assert [version.version for version in versions] == list(range(len(versions), 0, -1))
        current = store.facts(space, FactQuery(), after=None, limit=1000)
        assert {(f.entity, f.attribute): (f.valid_from, f.seq, f.value) for f in current} == {
            slot: max(values, key=lambda value: value[:2]) for slot, values in slots.items()
        }
        for (entity, attribute), values in slots.items():
            query = FactQuery(entity=entity, attribute=attribute, history=True)
            history = store.facts(space, query, after=None, limit=1000)
            assert [(f.valid_from, f.seq, f.value) for f in history] == sorted(values, key=lambda value: value[:2])

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        self.place.close()


class StoreConformance:
    """The suite. A subclass has the fixture `new_place`."""

    examples = 25
    """Random histories."""

    @pytest.fixture
    def place(self, new_place: Callable[[], Place]) -> Any:
        place = new_place()
        yield place
        place.close()

    @pytest.fixture
    def store(self, place: Place) -> Any:
        store = place.open()
        yield store
        store.close()

    def test_agrees_with_the_model(self, new_place: Callable[[], Place]) -> None:
        run_state_machine_as_test(
            lambda: StoreMachine(new_place),
            settings=settings(
                deadline=None,
                max_examples=self.examples,
                stateful_step_count=20,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )

    def test_batches_do_not_change_what_a_document_says(self, new_place: Callable[[], Place]) -> None:
        observations = [
            NewObservation(
                text=f"event {n}", occurred_at=float(n * 7 % 30), entities=[f"node/{n % 3}"], attributes={"s": n}
            )
            for n in range(40)
        ]
        results = []
        for limit in (1, 7, 512):
            place = new_place()
            store = place.open()
            store.append("a", observations, now=100.0)
            drain(store, "a", limit=limit)
            results.append(projection(store, "a"))
            store.close()
            place.close()
        for result in results[1:]:
            assert result["facts"] == results[0]["facts"]
            for topic, first in zip(result["topics"], results[0]["topics"], strict=True):
                # Only the version tells in how many steps it came about.
                assert topic.document.replace(f"version: {topic.version}", "") == first.document.replace(
                    f"version: {first.version}", ""
                )

    def test_pages(self, store: Store) -> None:
        store.append(
            "a", [NewObservation(text="x", entities=[f"n/{n}"], attributes={"k": n}) for n in range(9)], now=1.0
        )
        drain(store, "a")
        assert [topic.id for topic in store.topics("a", after="n/2", limit=3)] == ["n/3", "n/4", "n/5"]
        assert [topic.id for topic in store.topics("a", after="", limit=9, prefix="n/8")] == ["n/8"]
        assert store.topics("b", after="", limit=9) == []
        page = store.facts("a", FactQuery(attribute="k"), after=("n/2", "k", 1.0, 3), limit=2)
        assert [fact.entity for fact in page] == ["n/3", "n/4"]
        assert [item.seq for item in store.observations("a", after=3, limit=2)] == [4, 5]

    def test_what_held_at_a_time(self, store: Store) -> None:
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

    def test_a_value_that_is_stated_again_is_counted_again(self, store: Store) -> None:
        """So that one can count how often a node was excluded."""
        for number, reason in enumerate(["SlowNode", "SlowNode", "NodeLost", "SlowNode"]):
            store.append(
                "a",
                [
                    NewObservation(
                        text=f"node-3 is excluded: {reason}",
                        occurred_at=10.0 * number,
                        entities=["node/node-3", f"job/{number}"],
                        attributes={"cause": reason, "excluded": reason},
                    )
                ],
                now=100.0,
                idempotency_key=f"incident-{number}",
                request_hash=b"x",
            )
            drain(store, "a", limit=1)
        query = FactQuery(entity="node/node-3", attribute="excluded", history=True)
        history = store.facts("a", query, after=None, limit=200)
        assert [(fact.value, fact.valid_from) for fact in history] == [
            ("SlowNode", 0.0), ("SlowNode", 10.0), ("NodeLost", 20.0), ("SlowNode", 30.0)
        ]  # fmt: skip
        assert [fact.valid_to for fact in history] == [10.0, 20.0, 30.0, None]

    def test_an_empty_batch_is_a_mistake(self, store: Store) -> None:
        with pytest.raises(ValueError, match="at least one"):
            store.append("a", [], now=1.0)

    def test_nothing_is_there_before_it_is_written(self, store: Store) -> None:
        store.rebuild("a", DeterministicEngine())
        assert store.spaces() == []
        assert (store.last_seq("a"), store.buffers(), store.observations("a", after=0, limit=9)) == (0, [], [])
        assert store.topic("a", "x") is None
        assert store.topic_versions("a", "x", before=None, limit=9) == []
        assert store.facts("a", FactQuery(), after=None, limit=9) == []
        assert store.fact("a", "1.0") is None
        assert store.profiles("a", limit=9) == []
        assert store.batch("a", limit=9).observations in ((), [])
        assert store.search("a", ["x"], limit=9).seq == 0
        assert all(store.job(job) is None for job in ("", "x", "0" * 32, "0" * 32 + ".a", "é" * 32 + ".a", "../a"))
        job = store.request_consolidation("a", now=1.0)
        assert job.state is JobState.DONE
        assert store.job(job.id) == job
        assert store.spaces() == ["a"]
        assert store.topics("a", after="", limit=9) == []
        store.check()

    def test_numbers_come_back_as_they_were(self, store: Store) -> None:
        values: dict[str, str | float] = {
            "large": 2**63 - 1, "small": -(2**63) + 1, "float": 0.1 + 0.2, "whole": 1.0, "one": 1, "true": True,
            "tiny": 5e-324, "text": "1",
        }  # fmt: skip
        moments = [0.1 + 0.2, 1764000000.123456, 253_402_300_799.0]
        for moment in moments:
            store.append(
                "a",
                [NewObservation(text="x", occurred_at=moment, entities=["n"], attributes=dict(values))],
                now=moments[-1],
            )
        drain(store, "a", now=moments[-1])
        kept = store.observations("a", after=0, limit=9)
        assert [item.occurred_at for item in kept] == moments
        assert all(repr(item.attributes) == repr(values) for item in kept)
        facts = store.facts("a", FactQuery(), after=None, limit=9)
        assert {fact.attribute: repr(fact.value) for fact in facts} == {name: repr(v) for name, v in values.items()}
        assert {fact.valid_from for fact in facts} == {moments[-1]}

    def test_what_was_written_is_found_at_once_and_later(self, store: Store, place: Place) -> None:
        other = place.open()
        assert search(other, "a", "fans", limit=5).hits == []
        seqs = store.append(
            "a",
            [
                NewObservation(
                    text="the fan failed", source="ops", entities=["node/node-3"], attributes={"cause": "Fan"}
                ),
                NewObservation(text="something else", entities=["node/node-4"]),
            ],
            now=5.0,
        ).seqs
        for each in (store, other):
            answer = search(each, "a", "fans", limit=5, min_seq=seqs[-1])
            (hit,) = [hit.candidate for hit in answer.hits]
            assert (hit.text, hit.topic, list(hit.observations), hit.source) == ("the fan failed", None, [1], "ops")
        drain(store, "a")
        for each in (other, store):
            found = [hit.candidate for hit in search(each, "a", "fan of node-3", limit=9).hits]
            assert {hit.kind for hit in found} == set(CandidateKind)
            assert {hit.topic for hit in found[:3]} == {"node/node-3"}
            assert all(list(hit.observations) == [1] for hit in found[:3])
        assert search(store, "b", "fan", limit=5).hits == []
        with pytest.raises(BehindError, match="newest observation here is 2, not yet 3"):
            search(store, "a", "fan", limit=5, min_seq=3)
        other.close()

    def test_rebuild_gives_identical_documents(self, place: Place, store: Store) -> None:
        chance = random.Random(7)  # noqa: S311 - not a secret
        for step in range(30):
            store.append(
                chance.choice("ab"),
                [
                    NewObservation(
                        text=chance.choice(
                            ["disk of node-1 failed", "learning rate is 0.1", "node-2 was lost", "lunch"]
                        ),
                        occurred_at=chance.choice([None, float(chance.randrange(100))]),
                        entities=chance.choice([[], ["node/node-1"], ["node/node-2", "job/gpt"]]),
                        attributes={"cause": chance.choice(["NodeLost", "SlowNode"])},
                    )
                    for _ in range(chance.randrange(1, 6))
                ],
                now=float(200 + step),
            )
            if chance.random() < 0.5:
                drain(store, chance.choice("ab"), limit=chance.randrange(1, 9))
        before = {space: projection(store, space) for space in "ab"}
        buffers = store.buffers()
        answers = search(store, "a", "node-1 disk", limit=10)
        for space in "ab":
            # A rebuild does not look at what is computed.
            place.damage(store, space)
        again = place.open()
        assert again.spaces() == ["a", "b"]
        for space in "ab":
            again.rebuild(space, DeterministicEngine())
        for each in (again, store):
            assert {space: projection(each, space) for space in "ab"} == before
            assert each.buffers() == buffers
            assert search(each, "a", "node-1 disk", limit=10) == answers
        again.close()

    def test_several_at_once(self, place: Place) -> None:
        """Writers and two consolidations, as in several processes, lose nothing and do nothing twice."""
        stores = [place.open() for _ in range(5)]
        seqs: list[int] = []
        failed: list[BaseException] = []
        writing = threading.Event()

        def write(store: Store) -> None:
            for batch in range(25):
                new = [NewObservation(text=f"{batch} {n}", entities=[f"node/{n}"]) for n in range(3)]
                seqs.extend(store.append("a", new, now=1.0).seqs)

        def consolidate(store: Store) -> None:
            while not writing.is_set():
                try:
                    consolidate_next(store, DeterministicEngine(), "a", now=1.0, limit=7)
                except StoreConflict:
                    continue

        def read(store: Store) -> None:
            while not writing.is_set():
                seen = store.search("a", ["1"], limit=1000)
                assert seen.seq <= store.last_seq("a")
                for topic in store.topics("a", after="", limit=100):
                    assert f"\nversion: {topic.version}\n" in topic.document

        def run(function: Callable[[Store], None], store: Store) -> None:
            try:
                function(store)
            except BaseException as error:  # noqa: BLE001 - told below
                failed.append(error)

        writers = [threading.Thread(target=run, args=(write, store)) for store in stores[:2]]
        others = [threading.Thread(target=run, args=(consolidate, store)) for store in stores[2:4]]
        others.append(threading.Thread(target=run, args=(read, stores[4])))
        for thread in [*writers, *others]:
            thread.start()
        for thread in writers:
            thread.join()
        writing.set()
        for thread in others:
            thread.join()
        assert failed == []
        assert sorted(seqs) == list(range(1, 151))
        drain(stores[0], "a")
        before = projection(stores[1], "a")
        held = [seq for versions in before["versions"].values() for version in versions for seq in version.observations]
        assert sorted(held) == list(range(1, 151))
        stores[0].rebuild("a", DeterministicEngine())
        assert projection(stores[1], "a") == before
        for store in stores:
            store.close()
