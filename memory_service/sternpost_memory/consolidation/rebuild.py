"""Compute everything again from the log: topics, facts, search indexes."""

from __future__ import annotations

from sternpost_memory.consolidation.deterministic import DeterministicEngine
from sternpost_memory.errors import SettingsError
from sternpost_memory.store.location import StoreLocation


def rebuild_all(location: StoreLocation) -> list[str]:
    """Rebuild every space of a store; returns their names. The result is the same, byte for byte.

    A running service goes on answering from what was there until a space is done.

    Raises:
        SettingsError: there is no such store.
        StoreError: the store cannot be used.
    """
    path = location.path
    if path is not None and not path.is_file():
        raise SettingsError(f"there is no store {path} to rebuild: give the path of one with --store")
    store = location.open()
    try:
        spaces = store.spaces()
        engine = DeterministicEngine()
        for space in spaces:
            store.rebuild(space, engine)
        return spaces
    finally:
        store.close()
