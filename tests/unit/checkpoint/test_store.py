"""The conformance suite that every store must pass."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore

from sternpost_checkpoint.errors import FormatError, NotFoundError, StoreError
from sternpost_checkpoint.store.base import Store
from sternpost_checkpoint.store.file import FileStore
from sternpost_checkpoint.store.object_store import ObstoreStore
from sternpost_checkpoint.store.uri import open_store


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "file":
        return FileStore(tmp_path / "deep" / "store")
    return ObstoreStore(MemoryStore(), "memory://")


def test_put_get_read_size(store: Store) -> None:
    assert store.put("a/b.json", [b"12", memoryview(b"345"), b""]) == 5
    assert store.get("a/b.json", 5) == b"12345"
    assert store.read("a/b.json", 1, 3) == b"234"
    assert store.read("a/b.json", 5, 0) == b""
    assert store.size("a/b.json") == 5
    store.put("a/b.json", [b"new"])
    assert store.get("a/b.json", 5) == b"new"


def test_an_empty_object(store: Store) -> None:
    assert store.put("empty", []) == 0
    assert store.get("empty", 0) == b""


def test_a_large_object_in_pieces(store: Store) -> None:
    piece = os.urandom(1 << 20)
    assert store.put("large", [piece] * 20) == 20 << 20
    assert store.read("large", 19 << 20, 1 << 20) == piece


def test_missing(store: Store) -> None:
    for call in (lambda: store.get("x", 9), lambda: store.size("x"), lambda: store.read("x", 0, 1)):
        with pytest.raises(NotFoundError, match="x is not there"):
            call()
    assert store.get_or_none("x", 9) is None
    assert store.list("") == []
    assert store.list("nowhere/") == []
    store.delete("x")


def test_limits(store: Store) -> None:
    store.put("a", [b"12345"])
    with pytest.raises(StoreError, match="over the limit of 4"):
        store.get("a", 4)
    with pytest.raises(FormatError, match="cut short"):
        store.read("a", 3, 3)


def test_list_is_sorted_and_below_the_prefix(store: Store) -> None:
    for name in ("g/2/x", "g/1/y", "g/1/x", "gg/z", "top"):
        store.put(name, [name.encode()])
    assert [entry.name for entry in store.list("g/")] == ["g/1/x", "g/1/y", "g/2/x"]
    assert [entry.bytes for entry in store.list("g/1/")] == [5, 5]
    assert len(store.list("")) == 5


def test_put_if_absent_has_one_winner(store: Store) -> None:
    barrier, wins = threading.Barrier(8), []

    def contend(number: int) -> None:
        barrier.wait()
        if store.put_if_absent("runs/000001.json", str(number).encode()):
            wins.append(number)

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1
    assert store.get("runs/000001.json", 9) == str(wins[0]).encode()


def test_replace_compares(store: Store) -> None:
    assert not store.replace("latest.json", b"x", b"something")
    assert store.replace("latest.json", b"1", None)
    assert not store.replace("latest.json", b"2", None)
    assert not store.replace("latest.json", b"2", b"0")
    assert store.replace("latest.json", b"2", b"1")
    assert store.get("latest.json", 9) == b"2"


def test_an_error_of_the_pieces_leaves_nothing(store: Store) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"x" * (9 << 20)
        raise KeyError("torn")

    store.put("a/b", [b"old"])
    with pytest.raises(KeyError, match="torn"):
        store.put("a/b", pieces())
    with pytest.raises(KeyError, match="torn"):
        store.put("a/c", pieces())
    assert [entry.name for entry in store.list("")] == ["a/b"]
    assert store.get("a/b", 9) == b"old"


def test_delete(store: Store) -> None:
    store.put("a/b", [b"1"])
    store.delete("a/b")
    assert store.list("") == []
    store.put("a/b", [b"2"])
    assert store.get("a/b", 1) == b"2"


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../b", "a//b", ".hidden", "", "a\0b", "a\\b", "a" * 2000])
def test_names_without_tricks(store: Store, name: str) -> None:
    for call in (lambda: store.get(name, 1), lambda: store.put(name, [b""]), lambda: store.delete(name)):
        with pytest.raises(FormatError):
            call()


def test_a_file_store_syncs_before_it_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        calls.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")  # noqa: PTH112
        real_fsync(descriptor)

    def replace(source: Any, target: Any, **more: Any) -> None:
        calls.append("rename")
        real_replace(source, target, **more)

    store = FileStore(tmp_path)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    store.put("a", [b"1"])
    assert calls == ["file", "rename", "folder"]


@pytest.mark.parametrize(
    ("error", "words"),
    [(28, "no space left"), (5, "input/output error"), (30, "Read-only file system: let the checkpoint sidecar")],
)
def test_disk_errors_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, words: str) -> None:
    store = FileStore(tmp_path)

    def fail(descriptor: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match=words):
        store.put("a", [b"1"])
    assert list(tmp_path.iterdir()) == []


def test_sweep_removes_only_the_named_leftovers(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.put("generations/g/rank-00000.shard", [b"1"])
    for name in (".tmp-rank-00000.shard-aa", ".tmp-rank-00001.shard-aa"):
        (tmp_path / "generations" / "g" / name).write_bytes(b"half")
    assert store.sweep("generations/", "rank-00000.shard") == 1
    assert sorted(path.name for path in (tmp_path / "generations" / "g").iterdir()) == [
        ".tmp-rank-00001.shard-aa",
        "rank-00000.shard",
    ]


@pytest.mark.parametrize(
    ("uri", "words"),
    [("file://host/x", "three slashes"), ("ftp://x/y", "none of file, s3, gs, az"), ("relative", "none of")],
)
def test_bad_uris(uri: str, words: str) -> None:
    with pytest.raises(StoreError, match=words):
        open_store(uri)


def test_file_uris(tmp_path: Path) -> None:
    store = open_store((tmp_path / "a b").as_uri())
    store.put("x", [b"1"])
    assert (tmp_path / "a b" / "x").read_bytes() == b"1"
