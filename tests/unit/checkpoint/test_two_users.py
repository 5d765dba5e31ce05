"""Trainer and sidecar may be different users: what they exchange is open to both, whatever the umask of either."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sternpost_checkpoint.shm.files import make_directory, write_json
from sternpost_checkpoint.shm.mailbox import answer, ask, take_answer
from sternpost_checkpoint.shm.paths import rank_directory, slot_path, status_path
from sternpost_checkpoint.shm.slot import SlotWriter
from sternpost_checkpoint.shm.status import RankStatus, write_status

TRAINER, SIDECAR = 54_321, 65_532


@pytest.fixture(autouse=True)
def _narrow_umask():
    before = os.umask(0o077)
    yield
    os.umask(before)


def use(directory: Path) -> None:
    """What trainer and sidecar make in a rank's folder."""
    ask(directory, "a" * 32, {"type": "list"})
    ask(directory, "b" * 32, {"type": "list"})
    answer(directory, "b" * 32, {})
    write_status(status_path(directory), RankStatus())
    SlotWriter.open(slot_path(directory, 0)).ensure(8192)


def test_everything_is_open_to_all(tmp_path):
    use(rank_directory(tmp_path, 0))
    for path in tmp_path.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666), path
    assert len(list(tmp_path.rglob("*"))) == 8
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_folder_that_is_there_stays_as_it_is(tmp_path):
    make_directory(tmp_path / "a" / "b")
    write_json(tmp_path / "a" / "b" / "file", {})
    make_directory(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / "file").exists()


def test_who_comes_second_finds_the_folder_of_the_first(tmp_path, monkeypatch):
    folder = tmp_path / "a"
    checks = iter([False])
    is_dir = Path.is_dir
    monkeypatch.setattr(Path, "is_dir", lambda path: next(checks, is_dir(path)) if path == folder else is_dir(path))
    folder.mkdir()
    (folder / "file").touch()
    make_directory(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become two users")
def test_two_users_do(tmp_path):
    # Parents that pytest made for root alone.
    for parent in [tmp_path, *tmp_path.parents]:
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o011)
    tmp_path.chmod(0o777)
    directory = rank_directory(tmp_path, 0)

    def first() -> None:
        use(directory)

    def second() -> None:
        use(directory)
        assert take_answer(directory, "b" * 32) == {}
        (directory / "requests" / f"{'a' * 32}.json").unlink()
        slot = SlotWriter.open(slot_path(directory, 0))
        slot.begin()

    for user, part in ((TRAINER, first), (SIDECAR, second), (TRAINER, second)):
        assert as_user(user, part) == 0, user


def as_user(user: int, part) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            part()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
