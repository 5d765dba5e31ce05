"""Files that cannot be used, disks that are full, several processes: one clear error each, nothing lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from sternpost_memory.errors import (
    StoreBusy,
    StoreCorrupted,
    StoreFull,
    StoreTooNew,
    StoreUnavailable,
)
from sternpost_memory.model import NewObservation
from sternpost_memory.store import sqlite_connections
from sternpost_memory.store.sqlite import SqliteStore


def some(count: int, size: int = 10) -> list[NewObservation]:
    return [NewObservation(text=f"{n} " + "x" * size, entities=[f"node/{n % 3}"]) for n in range(count)]


def test_commits_are_on_disk_before_they_are_acknowledged(store: SqliteStore) -> None:
    with store._connections.write() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_a_store_of_a_newer_version(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    SqliteStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO migrations VALUES (99, 0)")
    connection.close()
    with pytest.raises(StoreTooNew, match=r"version 99.*install the newer"):
        SqliteStore(path)


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreCorrupted, match="not a memory store"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    path.write_bytes(b"hello" * 1000)
    with pytest.raises(StoreCorrupted, match=r"damaged.*backup.*\.recover"):
        SqliteStore(path)


def test_a_damaged_store(tmp_path: Path, drain: Callable[..., None]) -> None:
    path = tmp_path / "m.db"
    store = SqliteStore(path)
    store.append("a", some(200, 500), now=1.0)
    drain(store, "a")
    store.close()
    content = bytearray(path.read_bytes())
    for page in range(2, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(content)
    with pytest.raises(StoreCorrupted, match="damaged"):
        SqliteStore(path)


@pytest.mark.parametrize("name", ["file/m.db", "folder"])
def test_a_path_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreUnavailable, match=name.split("/", maxsplit=1)[0]):
        SqliteStore(tmp_path / name)


def test_a_full_store_keeps_all_and_goes_on_when_there_is_space(tmp_path: Path, drain: Callable[..., None]) -> None:
    path = tmp_path / "m.db"
    store = SqliteStore(path, max_bytes=1024 * 1024)
    kept = 0
    with pytest.raises(StoreFull, match="no space left"):  # noqa: PT012 - it takes some writes to fill it
        while True:
            store.append("a", some(20, 2000), now=1.0, idempotency_key=f"k{kept}", request_hash=b"x")
            kept += 20
    assert kept >= 100
    assert store.last_seq("a") == kept
    assert len(store.observations("a", after=0, limit=10_000)) == kept
    with pytest.raises(StoreFull):
        drain(store, "a")
    with store._connections.write() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    again = store.append("a", some(20, 2000), now=2.0, idempotency_key=f"k{kept}", request_hash=b"x")
    assert list(again.seqs) == list(range(kept + 1, kept + 21))
    drain(store, "a")
    assert sum(topic.sources for topic in store.topics("a", after="", limit=9)) == kept + 20
    store.close()


def test_a_store_that_another_process_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_connections, "BUSY_SECONDS", 0.05)
    path = tmp_path / "m.db"
    first, second = SqliteStore(path), SqliteStore(path)
    with first._connections.write(), pytest.raises(StoreBusy, match="try again"):
        second.append("a", some(1), now=1.0)
    second.append("a", some(1), now=1.0)
    first.close()
    second.close()
