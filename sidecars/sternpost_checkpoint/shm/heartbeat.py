"""Whether the sidecar lives. Process ids mean nothing across containers; the file's age does."""

from __future__ import annotations

from pathlib import Path

from sternpost_checkpoint.shm.paths import heartbeat_path

ALIVE_SECONDS = 10.0
"""The sidecar writes every second."""


def sidecar_alive(shm: Path, now: float) -> bool:
    """Whether the heartbeat file is younger than ALIVE_SECONDS at `now` (Unix seconds)."""
    try:
        return now - heartbeat_path(shm).stat().st_mtime < ALIVE_SECONDS
    except FileNotFoundError:
        return False
