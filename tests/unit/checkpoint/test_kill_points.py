"""kill -9 of a real process at every step: before every call to the operating system, and at every line.

A child is forked, arms itself to end by SIGKILL at one point, and works; the parent looks at what is left.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import sternpost_checkpoint
from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.gc import collect
from sternpost_checkpoint.lineage import Generation, newest
from sternpost_checkpoint.shm.slot import Slot
from sternpost_checkpoint.sidecar.registration import register
from sternpost_checkpoint.store.file import FileStore
from sternpost_checkpoint.verify import verify_generation

# Forking is what this is about; the children use none of the other threads' locks.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
CALLS = ("open", "write", "fsync", "close", "replace", "link", "unlink", "mkdir", "rmdir")
PACKAGE = str(Path(sternpost_checkpoint.__file__).parent)


def killed_at(number: int, arm: Callable[[int], None], work: Callable[[], None]) -> bool:
    """Do `work` in a child that ends itself at point `number`; False when it came to its end."""
    pid = os.fork()
    if pid == 0:
        try:
            sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
            arm(number)
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def at_call(number: int) -> None:
    """Before the `number`-th call to the operating system that changes something, or reads."""
    left = number

    def hooked(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return real(*arguments, **more)

        return call

    for name in CALLS:
        setattr(os, name, hooked(getattr(os, name)))


def at_line(number: int) -> None:
    """Before the `number`-th line of this package (and of the helpers that stand for the trainer)."""
    left = number

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        name = frame.f_code.co_filename
        if not name.startswith(PACKAGE) and not name.endswith("conftest.py"):
            return None
        if event == "line":
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
        return trace

    sys.settrace(trace)


def points(arm: Callable[[int], None], work: Callable[[], None], reset: Callable[[], None]) -> int:
    """How many points there are: found by doubling, then by halving."""
    low, high = 0, 1
    while True:
        reset()
        if not killed_at(high, arm, work):
            break
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        reset()
        if killed_at(middle, arm, work):
            low = middle
        else:
            high = middle
    return high


def newest_whole(store: FileStore) -> Generation | None:
    catalog = Catalog(store)
    found = newest((files.generation for files in catalog.generations() if files.complete), catalog.runs())
    if found is not None:
        assert verify_generation(catalog, found) == []
    return found


@pytest.mark.parametrize("arm", [at_call, at_line], ids=["call", "line"])
@pytest.mark.parametrize("world", [1, 2])
def test_the_sidecar_between_slot_and_commit(
    tmp_path: Path, helpers: Any, arm: Callable[[int], None], world: int
) -> None:
    """Store, commit, ledger, pointer, collection: N or N-1, whole; and the next sidecar finishes the work."""
    base, root = tmp_path / "base", tmp_path / "store"
    helpers.register_run(FileStore(base), 1)
    for step in (1, 2, 3):
        helpers.commit_generation(FileStore(base), tmp_path, step, keep=2, world=world)

    def reset() -> None:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(base, root)

    def work() -> None:
        helpers.commit_generation(FileStore(root), tmp_path, 4, keep=2, world=world)

    chosen = choose(points(arm, work, reset))
    seen = set()
    for number in chosen:
        reset()
        # Threads meet in other orders each time, so that the last few points may lie behind the end.
        assert killed_at(number, arm, work) or number > 0.9 * chosen[-1]
        found = newest_whole(FileStore(root))
        assert found in (Generation(3, 1), Generation(4, 1))
        seen.add(found)
        work()
        assert newest_whole(FileStore(root)) == Generation(4, 1)
        assert [files.generation.step for files in Catalog(FileStore(root)).generations()] == [3, 4]
    assert len(seen) == 2


def test_the_trainer_in_the_middle_of_a_save(tmp_path: Path, helpers: Any) -> None:
    """At every line of writing a slot: the slot before is whole, and the new one is whole or no slot."""
    folder = tmp_path / "slots"

    def reset() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        helpers.write_slot(folder / "slot-0", sequence=1, step=1)
        helpers.write_slot(folder / "slot-1", sequence=0, step=0)

    def work() -> None:
        helpers.write_slot(folder / "slot-1", sequence=2, step=2)

    count = points(at_line, work, reset)
    assert count > 40
    seen = set()
    for number in choose(count):
        reset()
        assert killed_at(number, at_line, work)
        headers = {}
        for index in range(2):
            slot = Slot.open(folder / f"slot-{index}")
            header = slot.header()
            if header is not None:
                slot.meta(header)
                assert bytes(slot.payload(header)[:4096]) == helpers.payload_of(header.step, 4096)
                headers[index] = header.step
        assert headers[0] == 1
        assert headers.get(1) in (None, 0, 2)
        seen.add(headers.get(1))
    assert seen >= {None, 0}


@pytest.mark.parametrize("arm", [at_call, at_line], ids=["call", "line"])
def test_a_registration(tmp_path: Path, helpers: Any, arm: Callable[[int], None]) -> None:
    """A run is registered or it is not; asked again with the same token it is registered once."""
    from sternpost_checkpoint.sidecar.attempt import Attempt

    root = tmp_path / "store"

    def reset() -> None:
        shutil.rmtree(root, ignore_errors=True)
        helpers.register_run(FileStore(root), 1)

    def work() -> None:
        register(
            Catalog(FileStore(root)),
            job_uid="uid-1",
            attempt=Attempt(2, "2-id"),
            current=None,
            restored_step=0,
            restored_run=None,
            token="token",
        )

    for number in choose(points(arm, work, reset)):
        reset()
        assert killed_at(number, arm, work)
        assert [run.number for run in Catalog(FileStore(root)).runs()] in ([1], [1, 2])
        work()
        assert [run.number for run in Catalog(FileStore(root)).runs()] == [1, 2]


@pytest.mark.parametrize("arm", [at_call, at_line], ids=["call", "line"])
def test_a_collection(tmp_path: Path, helpers: Any, arm: Callable[[int], None]) -> None:
    """Whatever has a manifest is whole, at every moment."""
    base, root = tmp_path / "base", tmp_path / "store"
    for step in range(1, 6):
        helpers.commit_generation(FileStore(base), tmp_path, step)

    def reset() -> None:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(base, root)

    def work() -> None:
        collect(Catalog(FileStore(root)), keep=2)

    for number in choose(points(arm, work, reset)):
        reset()
        assert killed_at(number, arm, work)
        catalog = Catalog(FileStore(root))
        for files in catalog.generations():
            if files.complete:
                assert verify_generation(catalog, files.generation) == []
        assert newest_whole(FileStore(root)) == Generation(5, 1)
        work()
        assert [files.generation.step for files in catalog.generations()] == [4, 5]


def choose(count: int, most: int = 45) -> list[int]:
    """All points, or so many of them: every region of them, the first and the last included."""
    if count <= most:
        return list(range(count))
    edges = np.linspace(0, count - 1, most).astype(int)
    random = np.random.default_rng(5)
    return sorted({0, count - 1, *(int(random.integers(low, high + 1)) for low, high in itertools.pairwise(edges))})
