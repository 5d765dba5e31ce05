"""Measure how long a state takes to come back: from shared memory, from a peer, from a storage of 200 MB/s, in one run.

    python -m benchmarks.checkpoint.restore [--json] [--megabytes 1000] [--rounds 5]

The state is of 291 float32 tensors. A second process is the peer: it has the state in its slot and serves it, and beside it the
same bytes over plain TLS: one connection of a wrapped socket, with the same certificate. In each round everything is measured
once, so that a busy machine is busy for all; the figures are medians, and a goal is about the medians of one run.
All targets are faulted in before; `fresh` is the peer and plain TLS into shared memory that is reserved first, as at a new
worker.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch
import xxhash
from prometheus_client import CollectorRegistry

from benchmarks.results import Check, progress, publish
from sternpost_checkpoint.adaptive.policy import CodecPolicy
from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.client.memory import Slots
from sternpost_checkpoint.format.table import Meta, TensorSpec
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.ring.keys import SERVER_NAME, RingKeys
from sternpost_checkpoint.ring.metrics import RingMetrics
from sternpost_checkpoint.ring.ring import Ring
from sternpost_checkpoint.shm.files import make_directory
from sternpost_checkpoint.shm.layout import HEADER_BYTES, SlotHeader, align
from sternpost_checkpoint.shm.paths import rank_directory, slot_path, status_path
from sternpost_checkpoint.shm.slot import Slot, SlotWriter, bytes_needed
from sternpost_checkpoint.shm.status import Progress, RankStatus, SlotStatus, write_status
from sternpost_checkpoint.sidecar.budget import Budget
from sternpost_checkpoint.sidecar.commit import try_commit
from sternpost_checkpoint.sidecar.config import CheckpointPolicy, Config
from sternpost_checkpoint.sidecar.encoder import RankEncoder, Resources
from sternpost_checkpoint.sidecar.fetch import fetch
from sternpost_checkpoint.sidecar.persist import Persist
from sternpost_checkpoint.store.file import FileStore
from sternpost_operator.cluster.ring_keys import new_ring_keys

JOB_UID = "benchmark"
STEP, RUN = 7, 1
STORAGE_BYTES_PER_SECOND = 200e6
MEMCPY_GOAL, TLS_GOAL, STORAGE_GOAL = 2.0, 1.3, 5.0
PIECE = 2**20


class LimitedStore(FileStore):
    """A folder that gives no more than so many bytes a second, to all its readers together."""

    _lock = threading.Lock()
    _free_at = 0.0

    def read(self, name: str, offset: int, length: int) -> bytes:
        """As a folder, but slowly."""
        self._pay(length)
        return super().read(name, offset, length)

    def read_into(self, name: str, offset: int, target: memoryview) -> None:
        """As a folder, but slowly."""
        self._pay(len(target))
        super().read_into(name, offset, target)

    def _pay(self, size: int) -> None:
        with self._lock:
            start = max(time.monotonic(), LimitedStore._free_at)
            LimitedStore._free_at = start + size / STORAGE_BYTES_PER_SECOND
        time.sleep(max(0.0, start + size / STORAGE_BYTES_PER_SECOND - time.monotonic()))


def table(megabytes: int) -> Meta:
    """24 layers of four matrices, an embedding, and twice as much for the optimizer."""
    elements = megabytes * 1_000_000 // 12
    shapes = [
        (elements // 10,),
        *((elements * 9 // 10 // 24 * share // 12,) for _ in range(24) for share in (3, 1, 4, 4)),
    ]
    specs: list[TensorSpec] = []
    offset = 0
    for role in ("model", "optimizer", "optimizer"):
        for shape in shapes:
            size = shape[0] * 4
            specs.append(TensorSpec(f"{role}/{len(specs)}", role, "float32", shape, offset, size, True, True))
            offset = align(offset + size)
    trees: dict[str, Any] = {"model": {}, "optimizer": {}}
    return Meta(replicated=True, trees=trees, tensors=tuple(specs))


def write_slot(path: Path, meta: Meta, rank: int) -> SlotHeader:
    """A state as a trainer leaves it: normal numbers, like weights."""
    data = meta.to_bytes()
    slot = SlotWriter.open(path)
    slot.ensure(bytes_needed(meta.payload_bytes, len(data)))
    slot.begin()
    random = np.random.default_rng(1)
    payload = np.frombuffer(slot.memory, np.uint8, meta.payload_bytes, HEADER_BYTES)
    block = (random.standard_normal(2**22) * 0.02).astype(np.float32).view(np.uint8)
    for start in range(0, len(payload), len(block)):
        piece = payload[start : start + len(block)]
        piece[:] = block[: len(piece)]
    offset = align(HEADER_BYTES + meta.payload_bytes)
    slot.memory[offset : offset + len(data)] = data
    header = SlotHeader(
        sequence=1, step=STEP, run=RUN, attempt_number=1, attempt_id="1-id", world_size=2, rank=rank,
        payload_bytes=meta.payload_bytes, meta_offset=offset, meta_bytes=len(data),
        meta_hash=xxhash.xxh3_128_digest(data), saved_at=1.0, blocked_seconds=0.0, memcpy_floor_seconds=0.0,
    )  # fmt: skip
    slot.publish(header)
    return header


def config(root: Path, index: int, port: int) -> Config:
    """Of one worker."""
    return Config(
        policy=CheckpointPolicy(storage=(root / "store").as_uri(), peer_memory="4Gi"),
        shm=root / f"worker-{index}",
        control=root,
        job_uid=JOB_UID,
        pod=f"job-{index}",
        metrics_port=None,
        grace_seconds=10,
        ring_port=port,
        ring_keys=root / "keys",
        listen_host="127.0.0.1",
    )


def open_ring(root: Path, index: int, port: int) -> Ring:
    """A worker's ring, started."""
    ring = Ring(config(root, index, port), Catalog(FileStore(root / "store")), RingMetrics(CollectorRegistry()))
    ring.start()
    if ring.port is None:
        raise SystemExit("the ring does not listen")
    return ring


def serve(root: Path, ring_port: int, tls_port: int) -> None:
    """The peer: worker 1, and the same bytes over plain TLS; until its standard input ends."""
    ring = open_ring(root, 1, ring_port)
    slot = Slot.open(slot_path(rank_directory(root / "worker-1", 1), 0))
    header = slot.header()
    if header is None:
        raise SystemExit("there is no state to serve")
    payload = slot.payload(header)
    context = RingKeys(root / "keys").current().server
    listener = socket.create_server(("127.0.0.1", tls_port))

    def plain() -> None:
        while True:
            connection, _ = listener.accept()
            with context.wrap_socket(connection, server_side=True) as tls:
                for start in range(0, len(payload), PIECE):
                    tls.sendall(payload[start : start + PIECE])

    threading.Thread(target=plain, daemon=True).start()
    ring.on_ready_slot(1, 0, header)
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(0)


def over_tls(root: Path, port: int, target: memoryview) -> None:
    """What plain TLS takes."""
    context = RingKeys(root / "keys").current().client
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname=SERVER_NAME) as tls:
        position = 0
        while position < len(target):
            count = tls.recv_into(target[position : position + PIECE])
            if not count:
                raise SystemExit("the plain TLS server has ended")
            position += count


Seconds = tuple[float, float]
"""By the clock, and of this process's CPU time: what a busy machine does not change."""


def timed(work: Callable[[], Any]) -> Seconds:
    """How long it takes."""
    started, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - used


def commit(root: Path, meta: Meta) -> None:
    """Store the state, as two ranks that share it out."""
    for rank in range(2):
        specs = tuple(
            dataclasses.replace(spec, stored=(number % 2 == rank)) for number, spec in enumerate(meta.tensors)
        )
        path = root / "committing" / "slot-0"
        header = write_slot(path, dataclasses.replace(meta, tensors=specs), rank)
        resources = Resources(memory=Budget(2**28), processors=Budget(2), bases=Budget(0))
        encoder = RankEncoder(CodecPolicy(), resources, keep=3)
        Persist(Catalog(FileStore(root / "store")), encoder, JOB_UID)(SlotWriter.open(path), header)
        path.unlink()
    try_commit(Catalog(FileStore(root / "store")), Generation(STEP, RUN), 2, 10, lambda: None)


def free_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def prepare(root: Path, megabytes: int, ports: Sequence[int]) -> Meta:
    """Keys, attempt, the states in both workers' slots and in the storage."""
    keys = new_ring_keys(JOB_UID, datetime.now(UTC))
    (root / "keys").mkdir()
    content = (keys.trusted, keys.certificate, keys.key, keys.tokens)
    for name, data in zip(("ca.crt", "tls.crt", "tls.key", "tokens"), content, strict=True):
        (root / "keys" / name).write_bytes(data)
    workers = [
        {"index": index, "uid": f"u{index}", "pod": f"job-{index}", "node": "n", "address": "127.0.0.1",
         "eagleEyePort": 1, "ringPort": ports[index]}
        for index in range(2)
    ]  # fmt: skip
    spec = {"number": 1, "id": "1-id", "jobUid": JOB_UID, "action": "run", "ranksPerWorker": 1, "workers": workers}
    (root / "attempt.json").write_text(json.dumps({"spec": spec}))
    meta = table(megabytes)
    progress("storing the state")
    commit(root, meta)
    for index in range(2):
        directory = rank_directory(root / f"worker-{index}", index)
        make_directory(directory)
        write_slot(slot_path(directory, 0), meta, index)
    return meta


def measure(root: Path, meta: Meta, rounds: int, ring: Ring, tls_port: int) -> dict[str, Seconds]:
    """Medians of everything."""
    directory = rank_directory(root / "worker-0", 0)
    slot = Slot.open(slot_path(directory, 0))
    header = slot.header()
    if header is None:
        raise SystemExit("there is no state")
    payload = slot.payload(header)
    entry = SlotStatus(1, STEP, RUN, Progress.COMMITTED, payload_hash=xxhash.xxh3_128_hexdigest(payload))
    write_status(status_path(directory), RankStatus({0: entry}))
    source, target = np.frombuffer(payload, np.uint8), np.ones(len(payload), np.uint8)
    memory = target.data
    tensors = [torch.from_numpy(target[spec.offset : spec.offset + spec.bytes]) for spec in meta.tensors]
    slots = Slots(directory)
    catalog, limited = Catalog(FileStore(root / "store")), Catalog(LimitedStore(root / "store"))
    generation = Generation(STEP, RUN)
    warm = SlotWriter.open(root / "target" / "slot-0")
    warm.ensure(bytes_needed(meta.payload_bytes, len(meta.to_bytes())))

    def memcpy() -> None:
        for start in range(0, len(source), 8 * PIECE):
            target[start : start + 8 * PIECE] = source[start : start + 8 * PIECE]

    def trainer() -> None:
        """What the Checkpointer does: hash the slot, and copy its tensors into those of the model."""
        _, views = slots.read(0, header)
        for tensor, view in zip(tensors, views, strict=True):
            if view is not None:
                tensor.copy_(view.view(torch.uint8).reshape(-1))

    def bring(where: Catalog, rank: int, at: Ring | None, into: SlotWriter, expected: str) -> None:
        found = fetch(where, generation, rank, into, 9, ring=at)
        if set(found.sources) != {expected}:
            raise SystemExit(f"the state came from {found.sources}, not from {expected}")

    def over_tls_to_fresh() -> None:
        slot = fresh_slot()
        slot.ensure(bytes_needed(meta.payload_bytes, len(meta.to_bytes())))
        over_tls(root, tls_port, memoryview(slot.memory)[HEADER_BYTES : HEADER_BYTES + len(payload)])

    def fresh_slot() -> SlotWriter:
        (root / "fresh").unlink(missing_ok=True)
        return SlotWriter(root / "fresh")

    cases: dict[str, Callable[[], Any]] = {
        "memcpy": memcpy,
        "sharedMemory": trainer,
        "sharedMemoryBySidecar": lambda: bring(catalog, 0, ring, warm, "shared-memory"),
        "plainTls": lambda: over_tls(root, tls_port, memory),
        "peer": lambda: _without_own(root, lambda: bring(catalog, 1, ring, warm, "peer")),
        "plainTlsFresh": over_tls_to_fresh,
        "peerFresh": lambda: _without_own(root, lambda: bring(catalog, 1, ring, fresh_slot(), "peer")),
        "storage": lambda: bring(limited, 0, None, warm, "storage"),
    }
    seconds: dict[str, list[Seconds]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, work in cases.items():
            taken = timed(work) if name not in ("peer", "peerFresh") else work()
            if number:  # the first round is for page faults, imports and compiled kernels
                seconds[name].append(taken)
        progress(f"round {number} of {rounds}: " + ", ".join(f"{n} {s[-1][0]:.3f}" for n, s in seconds.items() if s))
    return {
        name: (statistics.median(wall for wall, _ in values), statistics.median(cpu for _, cpu in values))
        for name, values in seconds.items()
    }


def _without_own(root: Path, work: Callable[[], None]) -> Seconds:
    """As at a worker that has nothing: its own slot is out of the way meanwhile. Of `work` alone."""
    path = slot_path(rank_directory(root / "worker-0", 0), 0)
    aside = path.with_name("aside")
    path.rename(aside)
    try:
        return timed(work)
    finally:
        aside.rename(path)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", nargs=3, metavar=("FOLDER", "RING", "TLS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # as the floor has one
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    if arguments.serve:
        serve(Path(arguments.serve[0]), int(arguments.serve[1]), int(arguments.serve[2]))
    ports = [free_port() for _ in range(3)]
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="sternpost-restore-") as folder:
        root = Path(folder)
        meta = prepare(root, arguments.megabytes, ports)
        peer = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.checkpoint.restore", "--serve", folder, str(ports[1]), str(ports[2])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        ring = open_ring(root, 0, ports[0])
        try:
            if peer.stdout is None or peer.stdout.readline() != b"ready\n":
                raise SystemExit("the peer did not start")
            measured = measure(root, meta, arguments.rounds, ring, ports[2])
        finally:
            peer.kill()
            peer.wait()
            ring.stop()
        stored = sum(
            entry.shard.bytes for entry in Catalog(FileStore(root / "store")).manifest(Generation(STEP, RUN)).ranks
        )
    seconds = {name: wall for name, (wall, _) in measured.items()}
    ratios = {
        "shared memory, of memcpy": (seconds["sharedMemory"] / seconds["memcpy"], MEMCPY_GOAL, False),
        "peer, of plain TLS": (seconds["peer"] / seconds["plainTls"], TLS_GOAL, False),
        "peer into fresh memory, of plain TLS into fresh memory": (
            seconds["peerFresh"] / seconds["plainTlsFresh"], TLS_GOAL, False,
        ),
        "storage of 200 MB/s, of shared memory": (seconds["storage"] / seconds["sharedMemory"], STORAGE_GOAL, True),
        "storage of 200 MB/s, of peer": (seconds["storage"] / seconds["peer"], STORAGE_GOAL, True),
    }  # fmt: skip
    checks = [
        Check(name, round(value, 2), "x", f"{'>=' if more else '<='} {goal}", value >= goal if more else value <= goal)
        for name, (value, goal, more) in ratios.items()
    ]
    figures = {
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "cpuSeconds": {name: round(cpu, 4) for name, (_, cpu) in measured.items()},
        "bytes": meta.payload_bytes,
        "tensors": len(meta.tensors),
        "storedBytes": stored,
        "rounds": arguments.rounds,
    }
    publish("checkpoint.restore", figures, checks, as_json=arguments.json)


if __name__ == "__main__":
    main()
