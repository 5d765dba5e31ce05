"""Storing and committing, with a storage that fails or a process that ends at every single operation."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.errors import FencedError, FormatError, StoreError
from sternpost_checkpoint.format.documents import Latest, parse
from sternpost_checkpoint.format.names import LATEST, generation_folder, manifest_path
from sternpost_checkpoint.gc import collect, collectable
from sternpost_checkpoint.lineage import Generation, Run, eligible, newest
from sternpost_checkpoint.shm.slot import Slot
from sternpost_checkpoint.sidecar.attempt import Attempt, AttemptFile
from sternpost_checkpoint.sidecar.commit import Outcome, try_commit
from sternpost_checkpoint.sidecar.jobs import Fence
from sternpost_checkpoint.sidecar.registration import register
from sternpost_checkpoint.store.base import Store
from sternpost_checkpoint.store.file import FileStore
from sternpost_checkpoint.store.object_store import ObstoreStore
from sternpost_checkpoint.verify import verify_generation


def pointed(store: Store) -> Generation:
    return parse(Latest, store.get(LATEST, 9999), LATEST).generation


def restorable(store: Store) -> Generation | None:
    catalog = Catalog(store)
    found = newest((files.generation for files in catalog.generations() if files.complete), catalog.runs())
    if found is not None:
        assert verify_generation(catalog, found) == []
    return found


@pytest.fixture(params=["file", "object"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return FileStore(tmp_path / "store") if request.param == "file" else ObstoreStore(MemoryStore(), "memory://")


def test_two_ranks_commit_when_both_are_there(store: Store, tmp_path: Path, helpers: Any) -> None:
    helpers.register_run(store, 1)
    catalog = Catalog(store)
    generation = Generation(7, 1)
    for rank in range(2):
        path = tmp_path / f"slot-{rank}"
        header = helpers.write_slot(path, sequence=1, step=7, rank=rank, world=2)
        assert try_commit(catalog, generation, 2, 3, lambda: None) is Outcome.WAITING
        helpers.persist(store, Slot.open(path), header)
    assert restorable(store) is None
    assert try_commit(catalog, generation, 2, 3, lambda: None) is Outcome.COMMITTED
    first = store.get(manifest_path(generation), 99999)
    assert try_commit(Catalog(store), generation, 2, 3, lambda: None) is Outcome.COMMITTED
    assert store.get(manifest_path(generation), 99999) == first
    assert restorable(store) == pointed(store) == generation
    manifest = catalog.manifest(generation)
    assert manifest.raw_bytes == 4096 + 2 * 16
    assert [entry.step for entry in catalog.ledger()] == [7]


def test_weights_hash_does_not_depend_on_the_number_of_ranks(tmp_path: Path, helpers: Any) -> None:
    hashes = set()
    for world in (1, 2, 3):
        store = FileStore(tmp_path / str(world))
        generation = helpers.commit_generation(store, tmp_path, 5, world=world)
        hashes.add(Catalog(store).manifest(generation).weights_hash)
    assert len(hashes) == 1


def test_parts_of_different_attempts_do_not_make_a_whole(tmp_path: Path, helpers: Any) -> None:
    store = FileStore(tmp_path / "store")
    for rank in range(2):
        path = tmp_path / f"slot-{rank}"
        header = helpers.write_slot(path, sequence=1, step=7, rank=rank, world=2, attempt=rank + 1)
        helpers.persist(store, Slot.open(path), header)
    with pytest.raises(FormatError, match="of attempt 2-id, rank 0 of 1-id"):
        try_commit(Catalog(store), Generation(7, 1), 2, 3, lambda: None)


def one_save(helpers: Any, store: Store, path: Path, header: Any) -> None:
    helpers.persist(store, Slot.open(path), header)
    try_commit(Catalog(store), Generation(header.step, header.run), 1, 2, lambda: None)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", ["crash", "error"])
def test_any_operation_may_fail(tmp_path: Path, helpers: Any, kind: str, after: bool) -> None:
    """Whatever operation is the last: N or N-1 is restorable, whole, and going on repairs everything."""
    base = tmp_path / "base"
    for step in (1, 2, 3):
        helpers.commit_generation(FileStore(base), tmp_path, step, keep=2)
    path = tmp_path / "slot-0"
    at = 0
    while True:
        shutil.copytree(base, tmp_path / "store")
        error = helpers.SimulatedCrashError() if kind == "crash" else helpers.StoreError("injected")
        store = helpers.FaultyStore(FileStore(tmp_path / "store"), at, error, after=after)
        header = helpers.write_slot(path, sequence=4, step=4)
        with contextlib.suppress(StoreError, helpers.SimulatedCrashError):
            one_save(helpers, store, path, header)
        plain = FileStore(tmp_path / "store")
        assert restorable(plain) in (Generation(3, 1), Generation(4, 1))
        one_save(helpers, plain, path, header)
        assert restorable(plain) == pointed(plain) == Generation(4, 1)
        assert [files.generation.step for files in Catalog(plain).generations()] == [3, 4]
        shutil.rmtree(tmp_path / "store")
        if store.operations <= at:
            break
        at += 1
    assert at > 10


def test_a_generation_that_was_abandoned_cannot_be_committed(store: Store, tmp_path: Path, helpers: Any) -> None:
    helpers.register_run(store, 1)
    helpers.commit_generation(store, tmp_path, 5)
    helpers.register_run(store, 2, restored_step=5)
    with pytest.raises(FencedError, match="step 6 of run 1 is not committed: attempt 2-id has gone on from step 5"):
        helpers.commit_generation(store, tmp_path, 6, run=1)
    assert restorable(store) == Generation(5, 1)
    helpers.commit_generation(store, tmp_path, 6, run=2)
    assert restorable(store) == pointed(store) == Generation(6, 2)


def test_the_pointer_never_moves_back(store: Store, tmp_path: Path, helpers: Any) -> None:
    helpers.commit_generation(store, tmp_path, 9)
    helpers.commit_generation(store, tmp_path, 8)
    assert pointed(store) == Generation(9, 1)
    helpers.register_run(store, 2, restored_step=8)
    helpers.commit_generation(store, tmp_path, 8, run=2)
    assert pointed(store) == Generation(8, 2)


def test_a_damaged_pointer_is_written_anew(tmp_path: Path, helpers: Any) -> None:
    store = FileStore(tmp_path / "store")
    store.put(LATEST, [b"garbage"])
    helpers.commit_generation(store, tmp_path, 9)
    assert pointed(store) == Generation(9, 1)


def test_fence() -> None:
    class Header:
        attempt_number, attempt_id, sequence, step = 1, "1-id", 5, 10

    header: Any = Header()
    Fence().check(0, header)
    Fence(Attempt(1, "1-id")).check(0, header)
    Fence(Attempt(2, "2-id"), frozenset({(0, 5)})).check(0, header)
    with pytest.raises(FencedError, match="saved after attempt 2-id began"):
        Fence(Attempt(2, "2-id"), frozenset({(0, 4)})).check(0, header)
    with pytest.raises(FencedError):
        Fence(Attempt(1, "1-other")).check(0, header)


def test_registration(store: Store) -> None:
    catalog = Catalog(store)

    def call(number: int, token: str, current: int | None = None, uid: str = "a") -> int:
        return register(
            catalog,
            job_uid=uid,
            attempt=Attempt(number, f"{number}-id"),
            current=Attempt(current, f"{current}-id") if current else None,
            restored_step=0,
            restored_run=None,
            token=token,
        )

    assert call(1, "t1") == 1
    assert call(1, "t1") == 1
    assert call(3, "t3") == 2
    with pytest.raises(FencedError, match="attempt 2-id is superseded by 3-id"):
        call(2, "t2")
    with pytest.raises(FencedError, match="attempt 4-id is superseded by 5-id"):
        call(4, "t4", current=5)
    assert call(1, "another job on the same storage", uid="b") == 3
    assert [run.number for run in Catalog(store).runs()] == [1, 2, 3]


def test_attempt_file(tmp_path: Path, helpers: Any) -> None:
    import json

    path = tmp_path / "attempt.json"
    attempts = AttemptFile(tmp_path, "uid")

    def write(number: object, uid: str = "uid") -> None:
        temporary = tmp_path / "new"
        temporary.write_text(json.dumps({"spec": {"number": number, "id": f"{number}-id", "jobUid": uid}}))
        temporary.replace(path)

    assert not attempts.refresh()
    write(3)
    assert attempts.refresh()
    for number, uid in ((2, "uid"), (9, "other"), ("x", "uid"), (3, "uid")):
        write(number, uid)
        assert not attempts.refresh()
    path.write_text("garbage")
    assert not attempts.refresh()
    assert attempts.current == Attempt(3, "3-id")


generations = st.builds(Generation, st.integers(0, 20), st.integers(1, 4))
run_lists = st.lists(st.integers(0, 20), max_size=4).map(
    lambda steps: [Run(number, step, "u", number, f"{number}-i") for number, step in enumerate(steps, start=1)]
)


@settings(deadline=None, max_examples=200)
@given(st.sets(generations, max_size=10), st.sets(generations, max_size=5), run_lists, st.integers(1, 4))
def test_collection_keeps_what_is_needed(
    complete: set[Generation], incomplete: set[Generation], runs: list[Run], keep: int
) -> None:
    incomplete -= complete
    garbage = collectable(complete, incomplete, runs, keep)
    line = sorted((generation for generation in complete if eligible(generation, runs)), reverse=True)
    assert not set(garbage) & set(line[:keep])
    if not line:
        assert garbage == []
        return
    for generation in incomplete - set(garbage):
        assert eligible(generation, runs)
        assert generation > line[0] or generation.run > line[0].run
    assert complete - set(garbage) == set(line[:keep])


def test_collection_may_crash_anywhere(tmp_path: Path, helpers: Any) -> None:
    base = FileStore(tmp_path / "base")
    for step in range(1, 6):
        helpers.commit_generation(base, tmp_path, step)
    at = 0
    while True:
        shutil.copytree(tmp_path / "base", tmp_path / "store")
        plain = FileStore(tmp_path / "store")
        crashed = False
        try:
            collect(Catalog(helpers.FaultyStore(plain, at, helpers.SimulatedCrashError(), after=True)), keep=2)
        except helpers.SimulatedCrashError:
            crashed = True
        for files in Catalog(plain).generations():
            if files.complete:
                assert verify_generation(Catalog(plain), files.generation) == []
        assert restorable(plain) == Generation(5, 1)
        collect(Catalog(plain), keep=2)
        assert [files.generation.step for files in Catalog(plain).generations()] == [4, 5]
        assert {path.name for path in (tmp_path / "store" / "generations").iterdir()} == {
            generation_folder(Generation(step, 1)).split("/")[1] for step in (4, 5)
        }
        shutil.rmtree(tmp_path / "store")
        if not crashed:
            break
        at += 1
    assert at > 9
