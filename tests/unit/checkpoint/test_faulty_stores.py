"""A sidecar on a storage that is full, broken, slow, short or silent."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_state import state_at, write_state
from prometheus_client import CollectorRegistry

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.errors import StoreError
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.shm.paths import rank_directory, status_path
from sternpost_checkpoint.shm.slot import Slot
from sternpost_checkpoint.shm.status import Progress, SlotStatus, read_status
from sternpost_checkpoint.sidecar.config import read_config
from sternpost_checkpoint.sidecar.metrics import Metrics
from sternpost_checkpoint.sidecar.service import Service
from sternpost_checkpoint.sidecar.workers import MAX_STUCK, GivenUpError, Workers, touch
from sternpost_checkpoint.store.base import Store
from sternpost_checkpoint.store.file import FileStore
from sternpost_checkpoint.verify import verify_generation


class GatedStore(FileStore):
    """Stops in the middle of a shard while the gate is closed."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.gate = threading.Event()
        self.stopped = threading.Event()

    def put(self, name: str, pieces: Iterable[bytes | memoryview]) -> int:
        return super().put(name, self._gated(pieces) if name.endswith(".shard") else pieces)

    def _gated(self, pieces: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        for number, piece in enumerate(pieces):
            if number == 2 and not self.gate.is_set():
                self.stopped.set()
                self.gate.wait()
            yield piece


def status_of(surroundings: Any, index: int = 0) -> SlotStatus | None:
    return read_status(status_path(rank_directory(surroundings.shm, 0))).slots.get(index)


def test_a_storage_that_hangs_does_not_hang_the_saves(surroundings: Any, helpers: Any) -> None:
    """It is given up, the slot is free, the trainer is told, and when it works again everything is there."""
    helpers.register_run(surroundings.store, 1)
    store = GatedStore(surroundings.storage)
    config = replace(read_config(surroundings.environment()), stall_seconds=0.2)
    service = Service(config, store, Metrics(CollectorRegistry()))
    write_state(surroundings.slot(0), state_at(1), step=1)

    def tick() -> None:
        service.tick(time.monotonic())

    def has(progress: Progress) -> bool:
        tick()
        found = status_of(surroundings)
        return found is not None and found.progress is progress

    helpers.until(lambda: has(Progress.PERSISTING))
    assert store.stopped.wait(10)
    helpers.until(lambda: has(Progress.FAILED))
    found = status_of(surroundings)
    assert found is not None
    assert found.progress.releases_slot
    assert "the storage has done nothing for" in found.error
    assert service._jobs._resources.memory.used == 0
    assert service._jobs._resources.bases.used == 0
    store.gate.set()
    write_state(surroundings.slot(1), state_at(2), step=2)

    def committed() -> list[Generation]:
        tick()
        return [files.generation for files in Catalog(FileStore(surroundings.storage)).generations() if files.complete]

    helpers.until(lambda: Generation(2, 1) in committed())
    assert verify_generation(Catalog(FileStore(surroundings.storage)), Generation(2, 1)) == []
    helpers.until(lambda: (tick(), service._persisting.stuck == 0)[1])
    assert list(surroundings.storage.rglob(".tmp-rank*")) == []


def test_a_silent_storage_does_not_keep_the_sidecar_from_ending(surroundings: Any, helpers: Any) -> None:
    """SIGTERM while the storage hangs: the sidecar ends within its grace period."""
    helpers.register_run(surroundings.store, 1)
    store = GatedStore(surroundings.storage)
    config = replace(read_config(surroundings.environment()), grace_seconds=3.5)
    service = Service(config, store, Metrics(CollectorRegistry()))
    write_state(surroundings.slot(0), state_at(1), step=1)
    helpers.until(lambda: (service.tick(time.monotonic()), store.stopped.is_set())[1])
    started = time.monotonic()
    service.drain()
    assert time.monotonic() - started < 5
    store.gate.set()


class BrokenStore(FileStore):
    """What `break_put` does to a shard, while it is set."""

    break_put: Callable[[Iterable[bytes | memoryview]], Iterator[bytes | memoryview]] | None = None

    def put(self, name: str, pieces: Iterable[bytes | memoryview]) -> int:
        if self.break_put is not None and name.endswith(".shard"):
            pieces = self.break_put(pieces)
        return super().put(name, pieces)


def raising(number: int) -> Callable[[Iterable[bytes | memoryview]], Iterator[bytes | memoryview]]:
    def pieces_of(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        for position, piece in enumerate(pieces):
            if position == 3:
                raise OSError(number, os.strerror(number))
            yield piece

    return pieces_of


def cut(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    return (piece for position, piece in enumerate(pieces) if position != 3)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (raising(errno.ENOSPC), "no space left"),
        (raising(errno.EIO), "the disk or its server is failing"),
        (cut, "took"),
    ],
    ids=["enospc", "eio", "short"],
)
def test_a_fault_costs_a_save_and_no_more(
    surroundings: Any, running: Callable[..., Any], helpers: Any, fault: Any, words: str
) -> None:
    helpers.register_run(surroundings.store, 1)
    store = BrokenStore(surroundings.storage)
    running(store)
    write_state(surroundings.slot(0), state_at(1), step=1)
    helpers.until(lambda: (found := status_of(surroundings)) and found.progress is Progress.COMMITTED)
    store.break_put = fault
    write_state(surroundings.slot(1), state_at(2), step=2)
    helpers.until(lambda: (found := status_of(surroundings, 1)) and found.progress is Progress.FAILED)
    found = status_of(surroundings, 1)
    assert found is not None
    assert words in found.error
    folder = surroundings.storage / "generations" / "000000000002-r000001"
    assert not folder.exists() or list(folder.iterdir()) == []
    store.break_put = None
    helpers.until(lambda: (found := status_of(surroundings, 1)) and found.progress is Progress.COMMITTED)
    for step in (1, 2):
        assert verify_generation(surroundings.catalog, Generation(step, 1)) == []


def test_a_slow_storage_holds_only_what_the_budget_allows(surroundings: Any, helpers: Any, tmp_path: Path) -> None:
    most = 0
    encoder = helpers.rank_encoder()
    encoder._resources.memory.total = 2**20

    class SlowStore(FileStore):
        def put(self, name: str, pieces: Iterable[bytes | memoryview]) -> int:
            def slowly() -> Iterator[bytes | memoryview]:
                nonlocal most
                for piece in pieces:
                    time.sleep(0.001)
                    most = max(most, encoder._resources.memory.used)
                    yield piece

            return super().put(name, slowly())

    state = state_at(1, elements=2**18, parameters=4)
    header = write_state(tmp_path / "slot-0", state, step=1)
    done = helpers.persist(SlowStore(surroundings.storage), Slot.open(tmp_path / "slot-0"), header, encoder=encoder)
    assert done.raw_bytes > 4 * 2**18 * 14 - 1
    assert 0 < most <= 2**20
    assert encoder._resources.memory.used == 0
    assert done.encoding.waits.store > 0
    stages = done.encoding.stages()
    assert stages.keys() == {"plan", "encode", "wait-encoder", "wait-store", "upload", "finish"}
    assert all(seconds >= 0 for seconds in stages.values())


class TestWorkers:
    def test_stuck_work_is_given_up_and_ends_at_its_next_step(self) -> None:
        workers = Workers("test", 1, stall_seconds=5)
        gate, given_up, ended = threading.Event(), [], threading.Event()

        def work() -> None:
            gate.wait()
            try:
                touch()
            except GivenUpError:
                ended.set()
                raise

        workers.submit("stuck", work, given_up.append)
        done = threading.Event()
        workers.submit("next", done.set)
        now = time.monotonic()
        workers.reap(now + 4)
        assert not done.is_set()
        workers.reap(now + 6)
        assert "nothing for 6 s" in given_up[0]
        assert done.wait(5)
        assert workers.stuck == 1
        gate.set()
        assert ended.wait(5)
        workers._stuck[0].finished.wait(5)
        workers.reap(now)
        assert (workers.stuck, workers.busy) == (0, 0)

    def test_progress_is_no_stall(self) -> None:
        workers = Workers("test", 1, stall_seconds=5)
        gate, touched = threading.Semaphore(0), threading.Semaphore(0)

        def work() -> None:
            for _ in range(3):
                gate.acquire()
                touch()
                touched.release()

        workers.submit("slow", work, pytest.fail)
        for _ in range(3):
            gate.release()
            touched.acquire()
            workers.reap(time.monotonic() + 4)
        assert workers.stuck == 0

    def test_too_many_stuck_calls_refuse_new_ones(self) -> None:
        workers = Workers("test", MAX_STUCK, stall_seconds=5)
        gate, given_up = threading.Event(), []
        for number in range(MAX_STUCK):
            workers.submit(str(number), gate.wait, given_up.append)  # type: ignore[arg-type]
        workers.reap(time.monotonic() + 6)
        workers.submit("one more", lambda: pytest.fail("begun"), given_up.append)
        assert len(given_up) == MAX_STUCK + 1
        assert "8 calls of the storage are stuck" in given_up[-1]
        gate.set()

    def test_a_defect_is_raised_where_somebody_sees_it(self) -> None:
        workers = Workers("test", 1, stall_seconds=5)

        def work() -> None:
            raise ValueError("a defect")

        workers.submit("broken", work)
        workers._running[0].finished.wait(5)
        with pytest.raises(ValueError, match="a defect"):
            workers.reap(time.monotonic())


def test_metrics_tell_what_a_save_came_to(surroundings: Any, helpers: Any) -> None:
    helpers.register_run(surroundings.store, 1)
    registry = CollectorRegistry()
    service = Service(read_config(surroundings.environment()), surroundings.store, Metrics(registry))

    def value(name: str, **labels: str) -> float:
        return registry.get_sample_value(f"sternpost_checkpoint_{name}", labels) or 0.0

    for step in (1, 2):
        write_state(surroundings.slot(step % 2), state_at(step), step=step)
        helpers.until(
            lambda step=step: (service.tick(time.monotonic()), value("committed_step") == step)[1]  # type: ignore[misc]
        )
    assert value("ratio") > 1.0
    assert value("bytes_per_second") > 0
    assert value("chain") == 1
    assert value("raw_bytes_total") == sum(float(value_) for value_ in [2 * (2 * 4096 * 14 + 16)])
    samples = [sample for metric in registry.collect() for sample in metric.samples]
    codecs = {sample.labels["codec"] for sample in samples if sample.name == "sternpost_checkpoint_codec_tensors_total"}
    assert "raw" in codecs
    assert len(codecs) > 1
    assert sum(sample.value for sample in samples if sample.name == "sternpost_checkpoint_short_of") == 1
    assert value("stuck_calls") == 0


def test_the_store_is_told_apart_from_its_wrapper(surroundings: Any) -> None:
    inner: Store = surroundings.store
    service = Service(read_config(surroundings.environment()), inner, Metrics(CollectorRegistry()))
    watched = service._catalog.store
    assert watched.uri == inner.uri
    watched.put("a/b", [b"12", b"345"])
    assert watched.get("a/b", 10) == b"12345"
    assert watched.read("a/b", 1, 2) == b"23"
    target = bytearray(3)
    watched.read_into("a/b", 2, memoryview(target))
    assert target == b"345"
    assert watched.size("a/b") == 5
    assert not watched.put_if_absent("a/b", b"x")
    assert watched.replace("a/b", b"y", b"12345")
    assert [entry.name for entry in watched.list("a/")] == ["a/b"]
    watched.delete("a/b")
    assert watched.list("a/") == []
    assert watched.sweep("a/", "b") == 0
    with pytest.raises(StoreError):
        watched.size("a/b")
