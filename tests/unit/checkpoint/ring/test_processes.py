"""Three sidecars as processes: one is killed with its memory, before anything is in the storage."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ring_world import JOB_UID, State, Worker, lose, tell, write_keys, write_state

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.shm.mailbox import ask, take_answer
from sternpost_checkpoint.shm.paths import rank_directory, slot_path
from sternpost_checkpoint.shm.slot import Slot
from sternpost_checkpoint.store.file import FileStore
from sternpost_checkpoint.verify import verify_generation

Start = Callable[[Worker], "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    processes: list[subprocess.Popen[bytes]] = []

    def run(worker: Worker) -> subprocess.Popen[bytes]:
        environment = {
            "STERNPOST_SHM_DIR": str(worker.shm),
            "STERNPOST_CONTROL_DIR": str(worker.control),
            "STERNPOST_CHECKPOINT": json.dumps({"storage": worker.storage.as_uri(), "peerMemory": worker.memory}),
            "STERNPOST_JOB_UID": JOB_UID,
            "STERNPOST_POD": worker.pod,
            "STERNPOST_GRACE_SECONDS": "5",
            "STERNPOST_PORT_RING": str(worker.port),
            "STERNPOST_RING_KEYS": str(worker.keys),
            "STERNPOST_LISTEN_HOST": "127.0.0.1",
        }
        log = (worker.root / "sidecar.log").open("ab")
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "sternpost_checkpoint", "sidecar"],
                env={**os.environ, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        )
        log.close()
        return processes[-1]

    yield run
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()


def call(worker: Worker, rank: int, body: dict[str, Any]) -> dict[str, Any]:
    """What the trainer asks of its sidecar."""
    directory, request = rank_directory(worker.shm, rank), uuid.uuid4().hex
    ask(directory, request, body)
    return until(lambda: take_answer(directory, request), f"an answer to {body['type']}")


def until(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come true within {seconds} s")


def log_of(worker: Worker) -> str:
    path = worker.root / "sidecar.log"
    return path.read_text() if path.exists() else ""


def test_a_killed_worker_is_replaced_from_its_peers_memory_and_its_part_is_stored(tmp_path: Path, start: Start) -> None:
    keys, storage = write_keys(tmp_path / "keys"), tmp_path / "store"
    storage.write_text("in the way: nothing can be stored")
    workers = [Worker(index, tmp_path / f"worker-{index}", keys, storage) for index in range(3)]
    tell(workers)
    running = [start(worker) for worker in workers]
    states = [State(3, rank, 3) for rank in range(3)]
    until(lambda: all('"ready"' in log_of(worker) for worker in workers), "the start of the sidecars")
    for worker, state in zip(workers, states, strict=True):
        write_state(worker.slot(0, state.rank), state, sequence=1)
    until(lambda: all("copied to the next worker" in log_of(worker) for worker in workers), "the copies")
    running[1].kill()
    running[1].wait()
    shutil.rmtree(workers[1].root)

    new = lose(workers[1])
    tell([workers[0], new, workers[2]], number=2)
    start(new)
    answer = call(new, 1, {"type": "list", "worldSize": 3})
    assert (answer["storage"], answer["memory"], answer["peer"]) == ([], [], [[3, 1]])
    for worker, rank in ((workers[0], 0), (workers[2], 2)):
        assert [3, 1] in [entry[:2] for entry in call(worker, rank, {"type": "list", "worldSize": 3})["memory"]]
    block = next(item for item in states[1].tensors() if item[3] is not None)
    assert block[3] is not None
    wanted = [{"name": block[0], "dtype": block[1], "shape": list(block[2].shape), "shard": block[3].to_json()}]
    fetched = call(new, 1, {"type": "fetch", "step": 3, "run": 1, "wanted": wanted})
    assert fetched["sources"] == {"peer": sum(values.nbytes for _, _, values, _, _ in states[1].tensors())}
    slot = Slot.open(slot_path(rank_directory(new.shm, 1), fetched["slot"]))
    header = slot.header()
    assert header is not None
    for spec, (_, _, values, _, _) in zip(slot.meta(header).tensors, states[1].tensors(), strict=True):
        assert bytes(slot.payload(header)[spec.offset : spec.offset + spec.bytes]) == values.tobytes()

    # The storage works again: the survivors store their parts, the new worker the lost one's, and somebody commits.
    storage.unlink()
    catalog = Catalog(FileStore(storage))
    until(lambda: any(files.complete for files in catalog.generations()), "the commit")
    assert verify_generation(catalog, Generation(3, 1)) == []
    assert catalog.manifest(Generation(3, 1)).attempt_id == "1-id"
    for worker in (workers[0], new, workers[2]):
        assert "Traceback" not in log_of(worker)
        for secret in ((keys / "tokens").read_text().strip(), "PRIVATE KEY"):
            assert secret not in log_of(worker)
