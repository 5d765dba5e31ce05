"""Stores: the conformance suite on a folder and in memory, and what only a folder can get wrong."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore
from store_conformance import StoreConformance

from sternpost_checkpoint.errors import StoreError
from sternpost_checkpoint.store.base import Store
from sternpost_checkpoint.store.file import FileStore
from sternpost_checkpoint.store.object_store import ObstoreStore
from sternpost_checkpoint.store.secrets import scrub
from sternpost_checkpoint.store.uri import open_store


class TestFolder(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return FileStore(tmp_path / "deep" / "store")


class TestFolderWithoutHardLinks(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
        def link(*_: Any, **__: Any) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", link)
        return FileStore(tmp_path / "store")


class TestMemory(StoreConformance):
    @pytest.fixture
    def store(self) -> Store:
        return ObstoreStore(MemoryStore(), "memory://")


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


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write = os.write

    def write(descriptor: int, data: memoryview) -> int:
        return real_write(descriptor, bytes(data)[: max(len(data) // 3, 1)])

    monkeypatch.setattr(os, "write", write)
    store = FileStore(tmp_path)
    assert store.put("a", [b"x" * 1000, memoryview(b"y" * 7)]) == 1007
    assert store.get("a", 9999) == b"x" * 1000 + b"y" * 7


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_disk_that_fills_up_in_the_middle_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real_write, written = os.write, 0

    def write(descriptor: int, data: memoryview) -> int:
        nonlocal written
        if written > 100:
            raise OSError(number, os.strerror(number))
        written += 60
        return real_write(descriptor, bytes(data)[:60])

    store = FileStore(tmp_path)
    store.put("a", [b"old"])
    monkeypatch.setattr(os, "write", write)
    with pytest.raises(StoreError, match="cannot write a in file:"):
        store.put("a", [b"x" * 1000])
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert store.get("a", 9) == b"old"


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
    [
        ("file://host/x", "three slashes"),
        ("ftp://x/y", "none of file, s3, gs, az"),
        ("relative", "none of"),
        ("s3://key:secret@bucket/prefix", "nothing else; give credentials"),
        ("s3://bucket/prefix?aws_secret_access_key=secret", "nothing else; give credentials"),
        ("ftp://key:secret@x/y", "none of"),
    ],
)
def test_bad_uris(uri: str, words: str) -> None:
    with pytest.raises(StoreError, match=words) as refused:
        open_store(uri)
    assert "secret" not in str(refused.value)


def test_credentials_are_scrubbed() -> None:
    environ = {"AWS_SECRET_ACCESS_KEY": "hunter2", "AZURE_STORAGE_SAS_TOKEN": "hunter2longer", "HOME": "/root"}
    text = "cannot use hunter2 or hunter2longer in /root: X-Amz-Signature=ab12&x Authorization: AWS4"
    assert scrub(text, environ) == "cannot use *** or *** in /root: X-Amz-Signature=***&x Authorization: ***"


def test_file_uris(tmp_path: Path) -> None:
    store = open_store((tmp_path / "a b").as_uri())
    store.put("x", [b"1"])
    assert (tmp_path / "a b" / "x").read_bytes() == b"1"
