"""persisted.json: what the sidecar has done with a rank's slots. The sidecar writes it, the trainer reads it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from sternpost_checkpoint.shm.files import read_json, write_json
from sternpost_checkpoint.shm.layout import SlotHeader


class Progress(StrEnum):
    """How far a slot's content has come."""

    PERSISTING = "persisting"
    STORED = "stored"
    """This rank's part is durable; the generation may wait for others."""
    COMMITTED = "committed"
    FAILED = "failed"
    """The storage refused; tried again while the content is there."""
    REFUSED = "refused"
    """The attempt was superseded; never tried again."""

    @property
    def releases_slot(self) -> bool:
        """Whether the trainer may write the slot again."""
        return self is not Progress.PERSISTING


@dataclass(frozen=True)
class SlotStatus:
    """The state of one saved sequence number."""

    sequence: int
    step: int
    run: int
    progress: Progress
    error: str = ""
    payload_hash: str = ""
    """xxh3-128 of the payload in hex, once the sidecar has read it."""
    world_size: int = 1


@dataclass(frozen=True)
class RankStatus:
    """The whole file."""

    slots: dict[int, SlotStatus] = field(default_factory=dict)
    committed_step: int | None = None
    committed_run: int | None = None
    failures: int = 0

    def of(self, index: int, header: SlotHeader) -> SlotStatus | None:
        """What was done with exactly this content of slot `index`; None for nothing yet."""
        status = self.slots.get(index)
        if status is None or (status.sequence, status.step, status.run) != (header.sequence, header.step, header.run):
            return None
        return status

    @property
    def highest_sequence(self) -> int:
        """The highest sequence number that was ever dealt with; 0 for none."""
        return max((status.sequence for status in self.slots.values()), default=0)

    def has_committed(self, step: int, run: int) -> bool:
        """Whether this generation, or a later one of the same run, is committed."""
        return self.committed_run == run and self.committed_step is not None and self.committed_step >= step


def write_status(path: Path, status: RankStatus) -> None:
    """Replace the file."""
    write_json(path, asdict(status))


def _slot_status(value: Any) -> SlotStatus | None:
    try:
        return SlotStatus(
            sequence=int(value["sequence"]),
            step=int(value["step"]),
            run=int(value["run"]),
            progress=Progress(value["progress"]),
            error=str(value["error"]),
            payload_hash=str(value["payload_hash"]),
            world_size=int(value["world_size"]),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _optional_int(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def read_status(path: Path) -> RankStatus:
    """Read the file; a missing or unreadable one says that nothing has been done."""
    value = read_json(path)
    if value is None:
        return RankStatus()
    slots: dict[int, SlotStatus] = {}
    entries = value.get("slots")
    for key, entry in (entries if isinstance(entries, dict) else {}).items():
        status = _slot_status(entry)
        if status is not None and key in ("0", "1"):
            slots[int(key)] = status
    failures = _optional_int(value.get("failures")) or 0
    return RankStatus(
        slots, _optional_int(value.get("committed_step")), _optional_int(value.get("committed_run")), failures
    )
