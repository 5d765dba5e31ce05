"""A sidecar's surroundings: shared memory, control folder, storage, and helpers that need no torch."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from prometheus_client import CollectorRegistry
from python_template import ForkedPython, PythonTemplate

from sternpost_checkpoint.adaptive.policy import CodecPolicy
from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.errors import StoreError
from sternpost_checkpoint.format.documents import RunDocument
from sternpost_checkpoint.format.names import run_path
from sternpost_checkpoint.format.table import Meta, TensorSpec
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.shm.layout import HEADER_BYTES, SlotHeader, align
from sternpost_checkpoint.shm.paths import rank_directory, slot_path
from sternpost_checkpoint.shm.slot import Slot, SlotWriter, bytes_needed
from sternpost_checkpoint.sidecar.budget import Budget
from sternpost_checkpoint.sidecar.commit import try_commit
from sternpost_checkpoint.sidecar.config import read_config
from sternpost_checkpoint.sidecar.encoder import RankEncoder, Resources
from sternpost_checkpoint.sidecar.metrics import Metrics
from sternpost_checkpoint.sidecar.persist import Persist, Persisted
from sternpost_checkpoint.sidecar.service import Service
from sternpost_checkpoint.store.base import Entry, Store
from sternpost_checkpoint.store.file import FileStore

JOB_UID = "uid-1"
TORCH = (
    "torch._dynamo",  # which the first step of any optimizer imports
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "torch.distributed.tensor.parallel",
    "sternpost_checkpoint.client.checkpointer",
    "sternpost_checkpoint.dcp",
)


def until(condition: Callable[[], Any], seconds: float = 20.0, what: str = "the condition") -> Any:
    """Poll until `condition` is true and return its value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"{what} did not come true within {seconds} s")


def payload_of(step: int, size: int) -> bytes:
    """The bytes of the weight at `step`."""
    return np.random.default_rng(step).standard_normal(size // 4).astype(np.float32).tobytes()


def write_slot(
    path: Path,
    *,
    sequence: int,
    step: int,
    run: int = 1,
    attempt: int = 1,
    rank: int = 0,
    world: int = 1,
    size: int = 4096,
) -> SlotHeader:
    """Save like a trainer, without torch: a replicated weight and a private random state."""
    owner = step % world
    specs = (
        TensorSpec("model/weight", "model", "float32", (size // 4,), 0, size, replicated=True, stored=owner == rank),
        TensorSpec("random/torch", "random", "uint8", (16,), align(size), 16, replicated=False, stored=True),
    )
    trees = {"model": {"weight": {"$": "tensor", "index": 0}}, "random": {"torch": {"$": "tensor", "index": 1}}}
    meta = Meta(replicated=True, trees=trees, tensors=specs)
    data = meta.to_bytes()
    slot = SlotWriter.open(path)
    slot.ensure(bytes_needed(meta.payload_bytes, len(data)))
    slot.begin()
    slot.memory[HEADER_BYTES : HEADER_BYTES + size] = payload_of(step, size)
    slot.memory[HEADER_BYTES + align(size) : HEADER_BYTES + align(size) + 16] = bytes([rank]) * 16
    meta_offset = align(HEADER_BYTES + meta.payload_bytes)
    slot.memory[meta_offset : meta_offset + len(data)] = data
    header = SlotHeader(
        sequence=sequence,
        step=step,
        run=run,
        attempt_number=attempt,
        attempt_id=f"{attempt}-id",
        world_size=world,
        rank=rank,
        payload_bytes=meta.payload_bytes,
        meta_offset=meta_offset,
        meta_bytes=len(data),
        meta_hash=xxhash.xxh3_128_digest(data),
        saved_at=1000.0 + step,
        blocked_seconds=0.01,
        memcpy_floor_seconds=float("nan"),
    )
    slot.publish(header)
    return header


def shard_of(storage: Path, step: int, *, run: int = 1, rank: int = 0) -> Path:
    """The one shard of a rank in a generation."""
    (found,) = (storage / "generations" / f"{step:012d}-r{run:06d}").glob(f"rank-{rank:05d}-*.shard")
    return found


def register_run(store: Store, number: int, restored_step: int = 0, attempt: int | None = None) -> None:
    """Register a run."""
    document = RunDocument(
        number=number,
        job_uid=JOB_UID,
        attempt_number=attempt or number,
        attempt_id=f"{attempt or number}-id",
        restored_step=restored_step,
        restored_run=None,
        token=f"token-{number}",
        registered_at=1.0,
    )
    assert store.put_if_absent(run_path(number), document.to_bytes())


def persist(
    store: Store,
    slot: Slot,
    header: SlotHeader,
    job_uid: str = JOB_UID,
    *,
    encoder: RankEncoder | None = None,
) -> Persisted:
    """Store one rank's part, like a sidecar that has just started; with `encoder`, like one that remembers."""
    encoder = encoder or rank_encoder()
    return Persist(Catalog(store), encoder, job_uid)(slot, header)


def rank_encoder(
    policy: CodecPolicy | None = None, *, keep: int = 3, bases: int = 2**26, processors: int = 1
) -> RankEncoder:
    """An encoder with budgets of its own."""
    resources = Resources(memory=Budget(2**24), processors=Budget(processors), bases=Budget(bases))
    return RankEncoder(policy or CodecPolicy(), resources, keep=keep)


def commit_generation(
    store: Store, folder: Path, step: int, *, run: int = 1, keep: int = 100, world: int = 1
) -> Generation:
    """Take one generation all the way, for each rank in turn."""
    for rank in range(world):
        path = folder / f"slot-{rank}"
        header = write_slot(path, sequence=step, step=step, run=run, rank=rank, world=world)
        persist(store, SlotWriter.open(path), header, JOB_UID)
    generation = Generation(step, run)
    try_commit(Catalog(store), generation, world, keep, lambda: None)
    return generation


class SimulatedCrashError(BaseException):
    """The process is gone: nothing catches it."""


class FaultyStore(Store):
    """Passes everything on, and counts; at one operation it fails, or the process ends, before or after the effect."""

    def __init__(self, inner: Store, at: int, error: BaseException | None, *, after: bool = False) -> None:
        self.inner = inner
        self.uri = inner.uri
        self.at = at
        self.error = error
        self.after = after
        self.operations = 0

    def _do(self, operation: Callable[[], Any]) -> Any:
        number = self.operations
        self.operations += 1
        hit = number == self.at and self.error is not None
        if hit and not self.after:
            raise self.error
        try:
            return operation()
        finally:
            if hit:
                raise self.error

    def put(self, name: str, pieces: Iterable[bytes | memoryview]) -> int:
        return self._do(lambda: self.inner.put(name, pieces))

    def put_if_absent(self, name: str, data: bytes) -> bool:
        return self._do(lambda: self.inner.put_if_absent(name, data))

    def replace(self, name: str, data: bytes, expected: bytes | None) -> bool:
        return self._do(lambda: self.inner.replace(name, data, expected))

    def get(self, name: str, limit: int) -> bytes:
        return self._do(lambda: self.inner.get(name, limit))

    def read(self, name: str, offset: int, length: int) -> bytes:
        return self._do(lambda: self.inner.read(name, offset, length))

    def size(self, name: str) -> int:
        return self._do(lambda: self.inner.size(name))

    def list(self, prefix: str) -> list[Entry]:
        return self._do(lambda: self.inner.list(prefix))

    def delete(self, name: str) -> None:
        self._do(lambda: self.inner.delete(name))


@dataclass
class Surroundings:
    """One worker's folders."""

    root: Path
    shm: Path
    control: Path
    storage: Path
    templates: Callable[..., PythonTemplate]
    processes: list[subprocess.Popen[bytes] | ForkedPython] = field(default_factory=list)
    keep: int = 3

    @property
    def store(self) -> FileStore:
        return FileStore(self.storage)

    @property
    def catalog(self) -> Catalog:
        return Catalog(self.store)

    def environment(self, attempt: int = 1, **more: str) -> dict[str, str]:
        return {
            "STERNPOST_SHM_DIR": str(self.shm),
            "STERNPOST_CONTROL_DIR": str(self.control),
            "STERNPOST_CHECKPOINT": json.dumps({"storage": self.storage.as_uri(), "keep": self.keep}),
            "STERNPOST_JOB_UID": JOB_UID,
            "STERNPOST_ATTEMPT": f"{attempt}-id",
            "STERNPOST_ATTEMPT_NUMBER": str(attempt),
            "STERNPOST_GRACE_SECONDS": "10",
            **more,
        }

    def slot(self, index: int, rank: int = 0) -> Path:
        return slot_path(rank_directory(self.shm, rank), index)

    def set_attempt(self, number: int, uid: str = JOB_UID) -> None:
        path = self.control / "attempt.json"
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps({"spec": {"number": number, "id": f"{number}-id", "jobUid": uid}}))
        temporary.replace(path)

    def python(self, *arguments: str, attempt: int = 1, **more: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, **self.environment(attempt), "OMP_NUM_THREADS": "1", **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.processes.append(process)
        return process

    def forked(
        self, code: str, *arguments: str, attempt: int = 1, modules: tuple[str, ...] = (), **more: str
    ) -> ForkedPython:
        """Like `python("-c", code, …)`, from a template that has imported torch, and `modules`, already."""
        environment = {**os.environ, **self.environment(attempt), "OMP_NUM_THREADS": "1", **more}
        process = self.templates(*modules).start(code, *arguments, environment=environment)
        self.processes.append(process)
        return process

    def sidecar(self, **more: str) -> subprocess.Popen[bytes]:
        return self.python("-m", "sternpost_checkpoint", "sidecar", **more)

    def service(self, store: Store | None = None) -> Service:
        return Service(read_config(self.environment()), store or self.store, Metrics(CollectorRegistry()))

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()


class RunningService:
    """A sidecar in a thread."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            beat = threading.Thread(target=self.service._beat)
            self.service._config.shm.joinpath("checkpoint").mkdir(exist_ok=True)
            beat.start()
            while not self._stop.is_set():
                self.service.tick(time.monotonic())
                time.sleep(0.005)
            self.service.drain()
            self.service._heartbeat_stop.set()
            beat.join()
        except BaseException as error:  # noqa: BLE001 # raised again by stop
            self.error = error
            self.service._heartbeat_stop.set()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=30)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory: these tests sync thousands of files, and what a disk does with that is not what they are about."""
    path = Path(tempfile.mkdtemp(prefix="test-of-sternpost-", dir="/dev/shm"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def templates() -> Iterator[Callable[..., PythonTemplate]]:
    made: dict[tuple[str, ...], PythonTemplate] = {}

    def template(*modules: str) -> PythonTemplate:
        if modules not in made:
            made[modules] = PythonTemplate([*TORCH, *modules])
        return made[modules]

    yield template
    for one in made.values():
        one.close()


@pytest.fixture
def surroundings(templates: Callable[..., PythonTemplate]) -> Iterator[Surroundings]:
    root = Path(tempfile.mkdtemp(prefix="test-of-sternpost-", dir="/dev/shm"))  # as in production
    made = Surroundings(root, root / "shm", root / "control", root / "store", templates)
    made.shm.mkdir()
    made.control.mkdir()
    yield made
    made.end()
    shutil.rmtree(root)


@pytest.fixture
def running(surroundings: Surroundings) -> Iterator[Callable[..., RunningService]]:
    started: list[RunningService] = []

    def start(store: Store | None = None) -> RunningService:
        started.append(RunningService(surroundings.service(store)))
        return started[-1]

    yield start
    for service in started:
        service.stop()


@pytest.fixture
def trainer(surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make this process the trainer of an attempt."""

    def become(attempt: int = 1) -> None:
        for name, value in surroundings.environment(attempt).items():
            monkeypatch.setenv(name, value)
        for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)

    return become


@pytest.fixture
def helpers() -> Any:
    """The functions above, for tests that cannot import this file."""

    class Helpers:
        pass

    made = Helpers()
    for function in (until, write_slot, register_run, commit_generation, payload_of, shard_of, persist, rank_encoder):
        setattr(made, function.__name__, function)
    made.FaultyStore = FaultyStore  # type: ignore[attr-defined]
    made.SimulatedCrashError = SimulatedCrashError  # type: ignore[attr-defined]
    made.StoreError = StoreError  # type: ignore[attr-defined]
    made.random = random.Random(7)  # type: ignore[attr-defined]  # noqa: S311 # not a secret
    return made
