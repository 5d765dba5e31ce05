"""The SQLite store, by the suite that every store has to pass."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from memory_store_conformance import Place, StoreConformance

from sternpost_memory.store.base import Store
from sternpost_memory.store.sqlite import SqliteStore


class SqlitePlace:
    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder

    def open(self) -> SqliteStore:
        return SqliteStore(self.folder / "m.db")

    def damage(self, store: Store, space: str) -> None:
        assert isinstance(store, SqliteStore)
        with store._connections.write() as connection:
            connection.execute("UPDATE topics SET document = 'nonsense', version = 77")
            connection.execute("UPDATE facts SET value = '0'")
            connection.execute("DELETE FROM topic_entries WHERE seq % 2 = 0")

    def close(self) -> None:
        shutil.rmtree(self.folder)


class TestSqliteStore(StoreConformance):
    @pytest.fixture
    def new_place(self, tmp_path: Path) -> Callable[[], Place]:
        numbers = iter(range(1_000_000))
        return lambda: SqlitePlace(tmp_path / str(next(numbers)))
