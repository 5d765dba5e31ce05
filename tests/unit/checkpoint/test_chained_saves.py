"""Saves that build on each other, with a storage that fails or a process that ends at every single operation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_state import State, state_at, write_state

from sternpost_checkpoint.adaptive.policy import CodecPolicy, Preference
from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.errors import CheckpointError, FormatError, StoreError
from sternpost_checkpoint.format.names import generation_folder, index_name, manifest_path
from sternpost_checkpoint.lineage import Generation, newest
from sternpost_checkpoint.restore.reader import GenerationReader
from sternpost_checkpoint.shm.slot import Slot
from sternpost_checkpoint.sidecar.commit import try_commit
from sternpost_checkpoint.sidecar.encoder import RankEncoder
from sternpost_checkpoint.store.base import Store
from sternpost_checkpoint.store.file import FileStore
from sternpost_checkpoint.verify import verify_generation

POLICY = CodecPolicy(prefer=Preference.SIZE, max_chain=3)
KEEP = 2


def whole(store: Store, generation: Generation, state: State | None = None) -> None:
    """Every tensor of a generation decodes to what was saved."""
    assert verify_generation(Catalog(store), generation) == []
    expected = state if state is not None else state_at(generation.step)
    found: dict[str, bytes] = {}

    def take(_: Any, spec: Any, raw: memoryview) -> None:
        found[spec.name] = bytes(raw)

    assert GenerationReader(Catalog(store), generation).tensors(take) == []
    assert found == {name: values.tobytes() for name, (_, values) in expected.items()}


def restorable(store: Store) -> Generation | None:
    catalog = Catalog(store)
    return newest((files.generation for files in catalog.generations() if files.complete), catalog.runs())


@pytest.fixture
def one_save(helpers: Any, tmp_path: Path) -> Callable[..., None]:
    def save(store: Store, step: int, encoder: RankEncoder) -> None:
        header = write_state(tmp_path / "slot-0", state_at(step), step=step)
        helpers.persist(store, Slot.open(tmp_path / "slot-0"), header, encoder=encoder)
        try_commit(Catalog(store), Generation(step, 1), 1, KEEP, lambda: None)

    return save


def chain_of(store: Store, step: int) -> int:
    return Catalog(store).manifest(Generation(step, 1)).chain


def test_a_chain_grows_to_its_cap_and_begins_anew(tmp_path: Path, helpers: Any, one_save: Callable[..., None]) -> None:
    store, encoder = FileStore(tmp_path / "store"), helpers.rank_encoder(POLICY, keep=KEEP)
    chains = []
    for step in range(1, 11):
        one_save(store, step, encoder)
        chains.append(chain_of(store, step))
        left = [files.generation for files in Catalog(store).generations() if files.complete]
        assert left[-2:] == [Generation(number, 1) for number in range(max(step - 1, 1), step + 1)]
        assert len(left) <= KEEP + POLICY.max_chain
        for generation in left:
            whole(store, generation)
    assert chains == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    manifest = Catalog(store).manifest(Generation(10, 1))
    assert manifest.bases == [(9, 1)]
    index = Catalog(store).index(manifest, manifest.ranks[0])
    deltas = {index.spec(entry.tensor).name for entry in index.stored if entry.delta}
    assert deltas >= {"model/0.weight", "model/1.weight"}
    assert all(entry.reason for entry in index.stored)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", ["crash", "error"])
def test_any_operation_may_fail(
    tmp_path: Path, helpers: Any, one_save: Callable[..., None], kind: str, after: bool
) -> None:
    """Whatever operation is the last: N or N-1 is restorable, whole, and going on repairs everything."""
    at = 0
    while True:
        plain = FileStore(tmp_path / f"store-{at}")
        encoder = helpers.rank_encoder(POLICY, keep=KEEP)
        for step in (1, 2, 3):
            one_save(plain, step, encoder)
        assert chain_of(plain, 3) == 2
        error = helpers.SimulatedCrashError() if kind == "crash" else StoreError("injected")
        faulty = helpers.FaultyStore(plain, at, error, after=after)
        with contextlib.suppress(StoreError, helpers.SimulatedCrashError):
            one_save(faulty, 4, encoder)
        found = restorable(plain)
        assert found in (Generation(3, 1), Generation(4, 1))
        whole(plain, found)
        if kind == "crash":
            encoder = helpers.rank_encoder(POLICY, keep=KEEP)
        for step in (4, 5):
            one_save(plain, step, encoder)
            assert restorable(plain) == Generation(step, 1)
        for files in Catalog(plain).generations():
            if files.complete:
                whole(plain, files.generation)
        assert encoder.base_bytes > 0
        if faulty.operations <= at:
            break
        at += 1
    assert at > 15


def test_a_base_that_somebody_has_collected_is_not_built_on(
    tmp_path: Path, helpers: Any, one_save: Callable[..., None]
) -> None:
    store, encoder = FileStore(tmp_path / "store"), helpers.rank_encoder(POLICY, keep=KEEP)
    one_save(store, 1, encoder)
    store.delete(manifest_path(Generation(1, 1)))
    one_save(store, 2, encoder)
    assert chain_of(store, 2) == 0
    one_save(store, 3, encoder)
    assert chain_of(store, 3) == 1


def test_what_builds_on_nothing_is_not_committed(tmp_path: Path, helpers: Any, one_save: Callable[..., None]) -> None:
    """The base disappears between encoding and commit: refused, the older generation stays the newest."""
    store, encoder = FileStore(tmp_path / "store"), helpers.rank_encoder(POLICY, keep=KEEP)
    for step in (1, 2):
        one_save(store, step, encoder)
    header = write_state(tmp_path / "slot-0", state_at(3), step=3)
    helpers.persist(store, Slot.open(tmp_path / "slot-0"), header, encoder=encoder)
    hidden = store.get(manifest_path(Generation(2, 1)), 10**6)
    store.delete(manifest_path(Generation(2, 1)))
    with pytest.raises(FormatError, match="step 3, rank 0: its base, step 2 of run 1, is not there any more"):
        try_commit(Catalog(store), Generation(3, 1), 1, KEEP, lambda: None)
    assert restorable(store) == Generation(1, 1)
    store.put(manifest_path(Generation(2, 1)), [hidden])
    try_commit(Catalog(store), Generation(3, 1), 1, KEEP, lambda: None)
    whole(store, Generation(3, 1))


def test_a_restarted_sidecar_takes_up_what_is_stored(
    tmp_path: Path, helpers: Any, one_save: Callable[..., None]
) -> None:
    """It would choose other bytes: what an index vouches for must not be written over."""
    store, encoder = FileStore(tmp_path / "store"), helpers.rank_encoder(POLICY, keep=KEEP)
    for step in (1, 2):
        one_save(store, step, encoder)
    header = write_state(tmp_path / "slot-0", state_at(3), step=3)
    helpers.persist(store, Slot.open(tmp_path / "slot-0"), header, encoder=encoder)
    index = store.get(generation_folder(Generation(3, 1)) + index_name(0), 10**6)
    again = helpers.persist(store, Slot.open(tmp_path / "slot-0"), header)
    assert (again.raw_bytes, again.encoding) == (0, None)
    assert store.get(generation_folder(Generation(3, 1)) + index_name(0), 10**6) == index
    try_commit(Catalog(store), Generation(3, 1), 1, KEEP, lambda: None)
    whole(store, Generation(3, 1))


def test_two_sidecars_of_one_rank_store_one_part(tmp_path: Path, helpers: Any) -> None:
    """The second one begins before the first one's index is there, and ends after it."""
    store = FileStore(tmp_path / "store")
    header = write_state(tmp_path / "slot-0", state_at(1), step=1)

    class Interrupted(helpers.FaultyStore):  # type: ignore[misc]
        def put_if_absent(self, name: str, data: bytes) -> bool:
            if name.endswith("rank-00000.json"):
                helpers.persist(store, Slot.open(tmp_path / "slot-0"), header)
            return bool(self.inner.put_if_absent(name, data))

    late = helpers.persist(Interrupted(store, -1, None), Slot.open(tmp_path / "slot-0"), header)
    assert late.raw_bytes == 0
    assert len(store.list(generation_folder(Generation(1, 1)))) == 2
    try_commit(Catalog(store), Generation(1, 1), 1, KEEP, lambda: None)
    whole(store, Generation(1, 1))


def test_the_parts_of_two_trainings_do_not_mix(tmp_path: Path, helpers: Any) -> None:
    store = FileStore(tmp_path / "store")
    for attempt in (1, 2):
        header = write_state(tmp_path / "slot-0", state_at(1), step=1, attempt=attempt)
        if attempt == 1:
            helpers.persist(store, Slot.open(tmp_path / "slot-0"), header)
            continue
        with pytest.raises(FormatError, match="two trainings write to this storage"):
            helpers.persist(store, Slot.open(tmp_path / "slot-0"), header)


@pytest.mark.parametrize("budget", [0, 8192, 2 * 8192, 2**20])
def test_bases_stay_within_their_budget(
    tmp_path: Path, helpers: Any, one_save: Callable[..., None], budget: int
) -> None:
    store, encoder = FileStore(tmp_path / "store"), helpers.rank_encoder(POLICY, keep=KEEP, bases=budget)
    for step in range(1, 5):
        one_save(store, step, encoder)
        assert encoder.base_bytes <= budget
        whole(store, Generation(step, 1))
    assert (chain_of(store, 4) > 0) == (budget >= 2 * 8192)


def test_a_torn_slot_leaves_no_base_behind(tmp_path: Path, helpers: Any, one_save: Callable[..., None]) -> None:
    store, encoder = FileStore(tmp_path / "store"), helpers.rank_encoder(POLICY, keep=KEEP)
    one_save(store, 1, encoder)
    header = write_state(tmp_path / "slot-0", state_at(2), step=2)

    class Overwritten(helpers.FaultyStore):  # type: ignore[misc]
        def put(self, name: str, pieces: Any) -> int:
            def torn() -> Any:
                for number, piece in enumerate(pieces):
                    if number == 2:
                        write_state(tmp_path / "slot-0", state_at(9), step=9)
                    yield piece

            return int(self.inner.put(name, torn()))

    with pytest.raises(CheckpointError, match="written again while it was read"):
        helpers.persist(Overwritten(store, -1, None), Slot.open(tmp_path / "slot-0"), header, encoder=encoder)
    for step in (3, 4):
        one_save(store, step, encoder)
        whole(store, Generation(step, 1))
    assert chain_of(store, 4) > 0
