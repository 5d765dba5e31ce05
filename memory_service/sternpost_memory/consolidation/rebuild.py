"""Compute everything again from the log: topics, facts, search indexes."""

from __future__ import annotations

from pathlib import Path

from sternpost_memory.consolidation.deterministic import DeterministicEngine
from sternpost_memory.store.sqlite import SqliteStore


def rebuild_file(path: Path) -> list[str]:
    """Rebuild every space of a store; returns their names. The result is the same, byte for byte.

    A running service goes on answering from what was there, and its writes wait, until a space is done.

    Raises:
        StoreError: the store cannot be used.
    """
    store = SqliteStore(path)
    try:
        spaces = store.spaces()
        engine = DeterministicEngine()
        for space in spaces:
            store.rebuild(space, engine)
        return spaces
    finally:
        store.close()
