"""Everything but the log can be computed again, to the byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sternpost_memory.consolidation.rebuild import rebuild_all
from sternpost_memory.model import NewObservation
from sternpost_memory.store.location import StoreLocation
from sternpost_memory.store.sqlite import SqliteStore


def test_a_file_is_rebuilt_space_by_space(
    tmp_path: Path, drain: Callable[..., None], projection: Callable[..., Any]
) -> None:
    path = tmp_path / "m.db"
    store = SqliteStore(path)
    for space in "ab":
        store.append(space, [NewObservation(text="disk of node-1 failed", entities=["node/node-1"])], now=200.0)
        drain(store, space)
    before = {space: projection(store, space) for space in "ab"}
    with store._connections.write() as connection:
        connection.execute("UPDATE topics SET document = 'nonsense', version = 77")
    store.close()
    assert rebuild_all(StoreLocation(str(path))) == ["a", "b"]
    store = SqliteStore(path)
    assert {space: projection(store, space) for space in "ab"} == before
    store.close()
