"""Where things are below `$STERNPOST_SHM_DIR`."""

from __future__ import annotations

import re
from pathlib import Path

_RANK = re.compile(r"^rank-(0|[1-9][0-9]{0,6})$")

SLOTS = 2


def checkpoint_directory(shm: Path) -> Path:
    """The folder that holds everything of this package."""
    return shm / "checkpoint"


def rank_directory(shm: Path, rank: int) -> Path:
    """The folder of one rank."""
    return checkpoint_directory(shm) / f"rank-{rank}"


def slot_path(directory: Path, index: int) -> Path:
    """Slot file `index` of a rank's folder."""
    return directory / f"slot-{index}"


def status_path(directory: Path) -> Path:
    """What the sidecar has done with this rank's slots."""
    return directory / "persisted.json"


def heartbeat_path(shm: Path) -> Path:
    """Rewritten by the sidecar every second."""
    return checkpoint_directory(shm) / "sidecar.json"


def requests_directory(directory: Path) -> Path:
    """What the trainer asks of the sidecar."""
    return directory / "requests"


def responses_directory(directory: Path) -> Path:
    """What the sidecar answers."""
    return directory / "responses"


def ranks_present(shm: Path) -> dict[int, Path]:
    """Every rank that has a folder."""
    found: dict[int, Path] = {}
    try:
        entries = list(checkpoint_directory(shm).iterdir())
    except FileNotFoundError:
        return found
    for entry in entries:
        match = _RANK.match(entry.name)
        if match and entry.is_dir():
            found[int(match.group(1))] = entry
    return found
