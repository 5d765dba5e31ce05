from __future__ import annotations

import logging
from pathlib import Path

import pytest

from sternpost_memory.errors import SettingsError, StoreUnavailable
from sternpost_memory.store.location import StoreLocation
from sternpost_memory.store.redis_connection import redacted
from sternpost_memory.store.scratch import ScratchFolder
from sternpost_memory.store.sqlite import SqliteStore


@pytest.mark.parametrize("form", ["{}", "sqlite:{}"])
def test_a_path_is_an_sqlite_file(tmp_path: Path, form: str) -> None:
    path = tmp_path / "m.db"
    location = StoreLocation(form.format(path))
    assert location.path == path
    store = location.open()
    assert isinstance(store, SqliteStore)
    store.close()
    assert path.exists()


@pytest.mark.parametrize(
    ("location", "message"),
    [
        (StoreLocation("http://x"), r"begins with http:.*redis://"),
        (StoreLocation("mysql:x"), r"begins with mysql:"),
        (StoreLocation(""), "empty"),
        (StoreLocation("sqlite:"), "empty"),
        (StoreLocation("redis://h", max_bytes=1), "maxmemory"),
        (StoreLocation("redis://:hunter2@h"), "STERNPOST_MEMORY_REDIS_PASSWORD"),
        (StoreLocation("redis://h", redis_password="hunter2", redis_password_file=Path("x")), "both set"),
        (StoreLocation("m.db", index=Path("x")), "--index"),
        (StoreLocation("redis://h:port"), "no URL of Redis"),
    ],
)
def test_locations_that_cannot_be(location: StoreLocation, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        location.open()
    assert "hunter2" not in str(caught.value)


def test_no_password_is_shown() -> None:
    assert redacted("redis://me:hunter2@h:1/0") == "redis://me:***@h:1/0"
    assert redacted("rediss://:hunt@er2@h") == "rediss://:***@h"
    assert redacted("redis://h:1/0") == "redis://h:1/0"


def test_a_redis_that_is_away_is_told_by_each_call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    location = StoreLocation(f"unix://{tmp_path}/nothing.sock", redis_password="hunter2", index=tmp_path / "index")
    store = location.open()
    for call in (store.check, store.buffers, lambda: store.topics("a", after="", limit=1)):
        with pytest.raises(StoreUnavailable, match=r"nothing\.sock"):
            call()
    store.close()
    assert list((tmp_path / "index").iterdir()) == []
    assert "hunter2" not in str(capsys.readouterr()) + caplog.text


def test_a_scratch_folder_of_a_process_that_died_is_removed(tmp_path: Path) -> None:
    first = ScratchFolder(tmp_path)
    second = ScratchFolder(tmp_path)
    assert first.path.exists()
    second.close()
    # A lock that nobody holds any more: its process was killed.
    abandoned = tmp_path / "sternpost-memory-index-gone"
    abandoned.mkdir()
    (abandoned / "lock").touch()
    (abandoned / "mirror.db").touch()
    unrelated = tmp_path / "mine"
    unrelated.mkdir()
    third = ScratchFolder(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([first.path, third.path, unrelated])
    first.close()
    third.close()


def test_a_scratch_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="--index"):
        ScratchFolder(tmp_path / "file")
