"""A sidecar that costs nothing: it answers a trainer that starts afresh, and says of every save that it is committed.

For measuring what the trainer's side takes alone; how the two disturb each other is another benchmark.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sternpost_checkpoint.errors import CheckpointError
from sternpost_checkpoint.shm.files import make_directory, write_json
from sternpost_checkpoint.shm.mailbox import answer, pending_requests
from sternpost_checkpoint.shm.paths import SLOTS, heartbeat_path, rank_directory, slot_path, status_path
from sternpost_checkpoint.shm.slot import Slot
from sternpost_checkpoint.shm.status import Progress, RankStatus, SlotStatus, write_status

_TICK_SECONDS = 0.002


class StandIn:
    """Serves rank 0 in `shm`, from a thread."""

    def __init__(self, shm: Path) -> None:
        self._shm = shm
        self._directory = rank_directory(shm, 0)
        self._stop = threading.Event()
        self._status = RankStatus()
        self._beaten = 0.0
        make_directory(self._directory)
        self._beat()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def settle(self) -> None:
        """Say of every save that there is that it is committed: not while one is measured."""
        entries = dict(self._status.slots)
        for index in range(SLOTS):
            try:
                header = Slot.open(slot_path(self._directory, index)).header()
            except CheckpointError:
                continue
            if header is not None:
                entries[index] = SlotStatus(header.sequence, header.step, header.run, Progress.COMMITTED)
                self._status = RankStatus(entries, header.step, header.run)
        write_status(status_path(self._directory), self._status)
        self._beat()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_TICK_SECONDS):
            for request in pending_requests(self._directory):
                kind = request.body.get("type")
                body = {"storage": [], "memory": [], "peer": []} if kind == "list" else {"run": 1}
                answer(self._directory, request.id, body)
            if time.monotonic() - self._beaten > 1:
                self._beat()

    def _beat(self) -> None:
        self._beaten = time.monotonic()
        write_json(heartbeat_path(self._shm), {})


@contextmanager
def trainer_environment(shm: Path, more: Mapping[str, str] | None = None) -> Iterator[None]:
    """Make this process a trainer."""
    wanted = {
        "STERNPOST_SHM_DIR": str(shm),
        "STERNPOST_ATTEMPT": "1-benchmark",
        "STERNPOST_ATTEMPT_NUMBER": "1",
        **(more or {}),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
