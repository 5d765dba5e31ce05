"""Workers of one job on this machine, each with its folders, keys and an attempt.json that names the others."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from prometheus_client import CollectorRegistry

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.format.table import Meta, Shard, TensorSpec
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.restore.layout import WantedEntry
from sternpost_checkpoint.ring.metrics import RingMetrics
from sternpost_checkpoint.ring.ring import Ring
from sternpost_checkpoint.shm.layout import HEADER_BYTES, SlotHeader, align
from sternpost_checkpoint.shm.paths import rank_directory, slot_path
from sternpost_checkpoint.shm.slot import SlotWriter, bytes_needed
from sternpost_checkpoint.sidecar.commit import try_commit
from sternpost_checkpoint.sidecar.config import CheckpointPolicy, Config
from sternpost_checkpoint.sidecar.fetch import Fetched, fetch
from sternpost_checkpoint.store.file import FileStore
from sternpost_operator.cluster.ring_keys import new_ring_keys

JOB_UID = "uid-1"


def write_keys(folder: Path, uid: str = JOB_UID) -> Path:
    """Fresh ring keys as files."""
    keys = new_ring_keys(uid, datetime.now(UTC))
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (
        ("ca.crt", keys.trusted),
        ("tls.crt", keys.certificate),
        ("tls.key", keys.key),
        ("tokens", keys.tokens),
    ):
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)
    return folder


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class State:
    """A rank's state: what is the same everywhere, a block of something larger, and what is its own."""

    step: int
    rank: int
    world: int
    elements: int = 4096
    replicated: bool = False

    def shared(self) -> np.ndarray:
        return np.random.default_rng(self.step).standard_normal(self.elements).astype(np.float32)

    def whole(self) -> np.ndarray:
        return (
            np.random.default_rng(1000 + self.step)
            .standard_normal((4 * self.world, self.elements // 8))
            .astype(np.float32)
        )

    def block(self) -> np.ndarray:
        return self.whole()[4 * self.rank : 4 * self.rank + 4]

    def own(self) -> np.ndarray:
        return np.random.default_rng([self.step, self.rank]).integers(0, 255, 100, dtype=np.uint8)

    def tensors(self) -> list[tuple[str, str, np.ndarray, Shard | None, bool]]:
        found: list[tuple[str, str, np.ndarray, Shard | None, bool]] = [
            ("model/shared", "float32", self.shared(), None, True)
        ]
        if not self.replicated:
            whole = self.whole()
            found.append(("model/block", "float32", self.block(), Shard(whole.shape, (4 * self.rank, 0)), False))
        found.append(("random/torch", "uint8", self.own(), None, False))
        return found

    def meta(self) -> Meta:
        specs, offset = [], 0
        trees: dict[str, Any] = {}
        for number, (name, dtype, values, shard, same) in enumerate(self.tensors()):
            role, _, path = name.partition("/")
            stored = self.rank == self.step % self.world if same else True
            specs.append(TensorSpec(name, role, dtype, values.shape, offset, values.nbytes, same, stored, shard))
            trees.setdefault(role, {})[path] = {"$": "tensor", "index": number}
            offset = align(offset + values.nbytes)
        return Meta(replicated=self.replicated, trees=trees, tensors=tuple(specs))


def write_state(path: Path, state: State, *, sequence: int, run: int = 1, attempt: int = 1) -> SlotHeader:
    """Save like a trainer."""
    meta = state.meta()
    data = meta.to_bytes()
    slot = SlotWriter.open(path)
    slot.ensure(bytes_needed(meta.payload_bytes, len(data)))
    slot.begin()
    for spec, (_, _, values, _, _) in zip(meta.tensors, state.tensors(), strict=True):
        slot.memory[HEADER_BYTES + spec.offset : HEADER_BYTES + spec.offset + spec.bytes] = values.tobytes()
    meta_offset = align(HEADER_BYTES + meta.payload_bytes)
    slot.memory[meta_offset : meta_offset + len(data)] = data
    header = SlotHeader(
        sequence=sequence,
        step=state.step,
        run=run,
        attempt_number=attempt,
        attempt_id=f"{attempt}-id",
        world_size=state.world,
        rank=state.rank,
        payload_bytes=meta.payload_bytes,
        meta_offset=meta_offset,
        meta_bytes=len(data),
        meta_hash=xxhash.xxh3_128_digest(data),
        saved_at=1000.0 + state.step,
        blocked_seconds=0.01,
        memcpy_floor_seconds=float("nan"),
    )
    slot.publish(header)
    return header


@dataclass
class Worker:
    """One worker's folders and ring."""

    index: int
    root: Path
    keys: Path
    storage: Path
    port: int = field(default_factory=free_port)
    pod: str = ""
    memory: str = "64Mi"
    ring: Ring | None = None

    def __post_init__(self) -> None:
        self.pod = self.pod or f"gpt-{self.index}"
        for folder in (self.shm, self.control):
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def shm(self) -> Path:
        return self.root / "shm"

    @property
    def control(self) -> Path:
        return self.root / "control"

    def config(self) -> Config:
        return Config(
            policy=CheckpointPolicy(storage=self.storage.as_uri(), peer_memory=self.memory),
            shm=self.shm,
            control=self.control,
            job_uid=JOB_UID,
            pod=self.pod,
            metrics_port=None,
            grace_seconds=10,
            ring_port=self.port,
            ring_keys=self.keys,
            listen_host="127.0.0.1",
        )

    def start(self) -> Ring:
        """A ring in this process."""
        self.ring = Ring(self.config(), Catalog(FileStore(self.storage)), RingMetrics(CollectorRegistry()))
        self.ring.start()
        assert self.ring.port == self.port
        return self.ring

    def stop(self) -> None:
        if self.ring is not None:
            self.ring.stop()
            self.ring = None

    def slot(self, index: int, rank: int | None = None) -> Path:
        return slot_path(rank_directory(self.shm, self.index if rank is None else rank), index)

    def save(self, state: State, *, slot: int | None = None, run: int = 1, push: bool = True) -> SlotHeader:
        """A trainer's save, and what the sidecar does with it first."""
        index = state.step % 2 if slot is None else slot
        header = write_state(self.slot(index, state.rank), state, sequence=state.step, run=run)
        if push and self.ring is not None:
            self.ring.on_ready_slot(state.rank, index, header)
        return header


def tell(workers: Sequence[Worker], number: int = 1, *, ranks_per_worker: int = 1, job_uid: str = JOB_UID) -> None:
    """Give every worker the attempt in which worker i has the ranks from i * ranks_per_worker on."""
    entries = [
        {
            "index": worker.index,
            "uid": f"uid-{worker.pod}-{worker.port}",
            "pod": worker.pod,
            "node": f"node-{worker.index}",
            "address": "127.0.0.1",
            "eagleEyePort": 9470,
            "ringPort": worker.port,
        }
        for worker in workers
    ]
    spec = {
        "number": number,
        "id": f"{number}-id",
        "jobUid": job_uid,
        "action": "run",
        "ranksPerWorker": ranks_per_worker,
        "workers": entries,
    }
    for worker in workers:
        path = worker.control / "attempt.json"
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps({"spec": spec}))
        temporary.replace(path)


def held(worker: Worker) -> set[tuple[int, int]]:
    """Rank and step of the parts on a worker's shelf."""
    assert worker.ring is not None
    return {(part.description.header.rank, part.description.header.step) for part in worker.ring._shelf.parts()}


def catch_up(worker: Worker) -> None:
    """One tick, and what it has started."""
    assert worker.ring is not None
    worker.ring._ticked_at = float("-inf")
    worker.ring.tick(time.monotonic())
    if worker.ring._catching_up is not None:
        worker.ring._catching_up.result()


def restore(worker: Worker, step: int, rank: int, **more: Any) -> tuple[Fetched, dict[str, bytes]]:
    """Into a fresh slot file beside the real ones; returns its tensors by name."""
    slot = SlotWriter(worker.root / f"target-{rank}")
    more.setdefault("wanted", block_of(State(step, rank, 3)) if rank < 3 else [])
    found = fetch(Catalog(FileStore(worker.storage)), Generation(step, 1), rank, slot, 99, ring=worker.ring, **more)
    meta, payload = slot.meta(found.header), slot.payload(found.header)
    return found, {spec.name: bytes(payload[spec.offset : spec.offset + spec.bytes]) for spec in meta.tensors}


def block_of(state: State) -> list[WantedEntry]:
    """What a trainer of the same world asks for."""
    return [WantedEntry(name, dtype, values.shape, shard) for name, dtype, values, shard, _ in state.tensors() if shard]


def expect(state: State) -> dict[str, bytes]:
    return {name: values.tobytes() for name, _, values, _, _ in state.tensors()}


def lose(worker: Worker) -> Worker:
    """A worker's node is gone; another Pod on another node takes its place, empty."""
    worker.stop()
    return Worker(
        worker.index,
        worker.root.with_name(f"{worker.root.name}-new"),
        worker.keys,
        worker.storage,
        pod=f"new-{worker.index}",
    )


def commit_states(worker: Worker, states: Sequence[State], helpers: Any) -> Generation:
    """Store and commit a generation, all ranks' parts."""
    store = FileStore(worker.storage)
    for state in states:
        path = worker.root / "committing" / f"slot-{state.rank}"
        header = write_state(path, state, sequence=state.step)
        helpers.persist(store, SlotWriter.open(path), header)
    generation = Generation(states[0].step, 1)
    try_commit(Catalog(store), generation, len(states), 100, lambda: None)
    return generation
