"""The worker, with a store that fails at every step."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sternpost_memory.consolidation.deterministic import DeterministicEngine
from sternpost_memory.consolidation.engine import Base, Change, Routes
from sternpost_memory.consolidation.policy import Policy
from sternpost_memory.consolidation.worker import Worker
from sternpost_memory.errors import StoreBusy, StoreConflict, StoreFull, StoreUnavailable
from sternpost_memory.metrics import Metrics
from sternpost_memory.model import NewObservation
from sternpost_memory.store.sqlite import SqliteStore


class FaultyStore:
    """Any store, in which the n-th call of the named methods raises, before or after it took effect."""

    STEPS = ("buffers", "batch", "profiles", "base", "commit")

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._fault: tuple[str, BaseException, bool] | None = None

    def fail_at(self, method: str, error: BaseException, *, after: bool = False) -> FaultyStore:
        self._fault = (method, error, after)
        return self

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._store, name)
        if not self._fault or self._fault[0] != name:
            return real
        _, error, after = self._fault

        def broken(*arguments: Any, **named: Any) -> Any:
            self._fault = None
            if after:
                real(*arguments, **named)
            raise error

        return broken


def worker_of(store: Any, engine: Any = None, **policy: Any) -> Worker:
    return Worker(
        store, engine or DeterministicEngine(), policy=Policy(**policy), metrics=Metrics(), clock=lambda: 1000.0
    )


OBSERVATIONS = [
    NewObservation(text="node-1 was lost", entities=["node/node-1"], attributes={"cause": "NodeLost"}),
    NewObservation(text="node-1 came back"),
]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", FaultyStore.STEPS)
@pytest.mark.parametrize("error", [StoreFull("x"), StoreBusy("x"), StoreUnavailable("x"), StoreConflict("x")])
def test_a_fault_at_any_step_changes_nothing_in_the_end(
    tmp_path: Path, step: str, after: bool, error: BaseException, projection: Callable[..., Any]
) -> None:
    results = []
    for faulty in (False, True):
        store = SqliteStore(tmp_path / f"{faulty}.db")
        store.append("a", OBSERVATIONS, now=10.0)
        wrapped = FaultyStore(store)
        if faulty:
            wrapped.fail_at(step, error, after=after)
        worker = worker_of(wrapped)
        while store.buffers():
            worker.work()
        results.append(projection(store, "a"))
        store.close()
    assert results[0] == results[1]
    assert results[0]["topics"][0].sources == 2


def test_what_is_written_during_a_consolidation_stays(store: SqliteStore) -> None:
    class Slow(DeterministicEngine):
        def consolidate(self, base: Base, routes: Routes) -> Change:
            change = super().consolidate(base, routes)
            if not written:
                written.append(store.append("a", OBSERVATIONS[:1], now=20.0))
            return change

    written: list[Any] = []
    store.append("a", OBSERVATIONS[:1], now=10.0)
    worker = worker_of(store, Slow())
    worker.work()
    assert [buffer.count for buffer in store.buffers()] == [1]
    worker.work()
    topic = store.topic("a", "node/node-1")
    assert topic
    assert (topic.version, topic.sources) == (2, 2)


def test_a_consolidation_that_was_overtaken_is_planned_again(store: SqliteStore) -> None:
    class Overtaken(DeterministicEngine):
        def consolidate(self, base: Base, routes: Routes) -> Change:
            if not overtaken.is_set():
                overtaken.set()
                worker_of(store).work()
            return super().consolidate(base, routes)

    overtaken = threading.Event()
    store.append("a", OBSERVATIONS, now=10.0)
    worker = worker_of(store, Overtaken())
    assert worker.work() == 0.0
    assert worker.work() > 0
    topic = store.topic("a", "node/node-1")
    assert topic
    assert (topic.version, topic.sources) == (1, 2)


def test_metrics_say_whether_the_store_is_up(store: SqliteStore) -> None:
    def up() -> float | None:
        return worker._metrics.registry.get_sample_value("sternpost_memory_store_up")

    wrapped = FaultyStore(store)
    worker = worker_of(wrapped)
    worker.work()
    assert up() == 1
    wrapped.fail_at("buffers", StoreUnavailable("x"))
    worker.work()
    assert up() == 0
    worker.work()
    assert up() == 1


def test_a_request_does_not_wait_for_age(store: SqliteStore) -> None:
    worker = worker_of(store, age=1e9)
    store.append("a", OBSERVATIONS, now=10.0)
    worker.work()
    assert store.topics("a", after="", limit=9) == []
    worker.request("a")
    worker.work()
    assert len(store.topics("a", after="", limit=9)) == 1
    worker.work()
    store.append("a", OBSERVATIONS, now=10.0)
    worker.work()
    assert len(store.buffers()) == 1


def test_the_thread_consolidates_and_stops(store: SqliteStore, poll: Callable[..., None]) -> None:
    worker = worker_of(store, age=0.0)
    worker.start()
    store.append("a", OBSERVATIONS, now=10.0)
    worker.notify()
    poll(lambda: not store.buffers())
    assert not worker.failed
    worker.stop()
    assert not worker.failed


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_died_is_noticed(store: SqliteStore, poll: Callable[..., None]) -> None:
    class Broken(DeterministicEngine):
        def consolidate(self, base: Base, routes: Routes) -> Change:
            raise ZeroDivisionError

    store.append("a", OBSERVATIONS, now=10.0)
    worker = worker_of(store, Broken())
    worker.start()
    poll(lambda: worker.failed)
