"""One rank's folder, as the sidecar sees it: which slot to persist next, and what has been done."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from sternpost_checkpoint.errors import FormatError
from sternpost_checkpoint.shm.layout import SlotHeader
from sternpost_checkpoint.shm.paths import SLOTS, slot_path, status_path
from sternpost_checkpoint.shm.slot import Slot
from sternpost_checkpoint.shm.status import Progress, RankStatus, SlotStatus, read_status, write_status

_log = structlog.get_logger()

RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)


@dataclass(frozen=True)
class Save:
    """A slot's content that the sidecar works on."""

    rank: int
    index: int
    slot: Slot
    header: SlotHeader


class RankFolder:
    """Reads the slots, owns the status file. Used from several threads; `persist` of one rank runs once at a time."""

    def __init__(self, rank: int, directory: Path) -> None:
        self.rank = rank
        self.directory = directory
        self.busy_persisting = False
        self.busy_answering = False
        self._slots = [Slot(slot_path(directory, index)) for index in range(SLOTS)]
        self._lock = threading.Lock()
        self._inode = directory.stat().st_ino
        self._status = read_status(status_path(directory))
        self._retry_at: dict[int, float] = {}
        self._attempts: dict[int, int] = {}
        self._damaged: set[int] = set()

    @property
    def status(self) -> RankStatus:
        """What has been done so far."""
        return self._status

    def is_same_folder(self, directory: Path) -> bool:
        """Whether the folder has not been removed and made again since."""
        try:
            return directory.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def ready(self) -> list[tuple[int, SlotHeader]]:
        """Every readable slot, oldest first."""
        found = []
        for index, slot in enumerate(self._slots):
            if not slot.refresh():
                continue
            try:
                header = slot.header()
            except FormatError as error:
                if index not in self._damaged:
                    self._damaged.add(index)
                    _log.error("a slot is not persisted", rank=self.rank, reason=str(error))
                continue
            self._damaged.discard(index)
            if header is not None:
                found.append((index, header))
        return sorted(found, key=lambda item: item[1].sequence)

    def next_save(self, now: float, *, drain: bool = False) -> Save | None:
        """The oldest content that is not yet dealt with; a failed one again after a pause, while it is the newest."""
        ready = self.ready()
        for position, (index, header) in enumerate(ready):
            status = self._status.of(index, header)
            if status is not None and status.progress in (Progress.STORED, Progress.COMMITTED, Progress.REFUSED):
                continue
            if status is not None and status.progress is Progress.FAILED:
                newest = position == len(ready) - 1
                if not newest or (now < self._retry_at.get(header.sequence, 0.0) and not drain):
                    continue
            return Save(self.rank, index, Slot.open(self._slots[index].path), header)
        return None

    def mark(self, index: int, header: SlotHeader, progress: Progress, error: str = "", payload_hash: str = "") -> None:
        """Write down how far a save has come."""
        with self._lock:
            before = self._status.of(index, header)
            entry = SlotStatus(
                sequence=header.sequence,
                step=header.step,
                run=header.run,
                progress=progress,
                error=error,
                payload_hash=payload_hash or (before.payload_hash if before else ""),
                world_size=header.world_size,
            )
            failed = progress is Progress.FAILED
            self._write(
                replace(
                    self._status,
                    slots={**self._status.slots, index: entry},
                    failures=self._status.failures + (1 if failed else 0),
                )
            )

    def postpone(self, header: SlotHeader, now: float) -> float:
        """Set the time of the next try of a failed save; returns the pause in seconds."""
        tries = self._attempts.get(header.sequence, 0)
        pause = RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)]
        self._attempts = {header.sequence: tries + 1}
        self._retry_at = {header.sequence: now + pause}
        return pause

    def committed(self, step: int, run: int) -> None:
        """Write down that a generation is committed."""
        with self._lock:
            slots = {
                index: replace(entry, progress=Progress.COMMITTED, error="")
                if (entry.step, entry.run) == (step, run)
                else entry
                for index, entry in self._status.slots.items()
            }
            self._write(replace(self._status, slots=slots, committed_step=step, committed_run=run))

    def stored_generations(self) -> list[SlotStatus]:
        """What waits for its commit, after a start of the sidecar."""
        return [entry for entry in self._status.slots.values() if entry.progress is Progress.STORED]

    def _write(self, status: RankStatus) -> None:
        self._status = status
        try:
            write_status(status_path(self.directory), status)
        except FileNotFoundError:
            # The trainer has removed the folder: this Pod's ranks have other numbers now.
            _log.info("a rank's folder is gone", rank=self.rank)
