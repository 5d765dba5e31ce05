from __future__ import annotations

import errno
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_checkpoint.errors import FormatError, SharedMemoryError, TornSlotError
from sternpost_checkpoint.format.table import Meta, TensorSpec, parse_meta
from sternpost_checkpoint.shm.choice import SlotView, slot_to_write
from sternpost_checkpoint.shm.layout import USED_BYTES, SlotHeader, SlotState, pack_fields, pack_prefix, unpack_header
from sternpost_checkpoint.shm.slot import Slot, SlotWriter
from sternpost_checkpoint.shm.status import Progress, RankStatus, SlotStatus, read_status, write_status


def header(**changes: Any) -> SlotHeader:
    values: dict[str, Any] = {
        "sequence": 5,
        "step": 100,
        "run": 2,
        "attempt_number": 3,
        "attempt_id": "3-abcdef01",
        "world_size": 4,
        "rank": 1,
        "payload_bytes": 1000,
        "meta_offset": 5120,
        "meta_bytes": 10,
        "meta_hash": bytes(range(16)),
        "saved_at": 1.5,
        "blocked_seconds": 0.25,
        "memcpy_floor_seconds": math.nan,
    }
    return SlotHeader(**{**values, **changes})


def page(state: SlotState, of: SlotHeader) -> bytes:
    return (pack_prefix(state) + pack_fields(of)).ljust(4096, b"\0")


def test_header_round_trip() -> None:
    found = unpack_header(page(SlotState.READY, header()), 10_000)
    assert header().is_same(found)


@pytest.mark.parametrize("state", [SlotState.EMPTY, SlotState.WRITING])
def test_only_ready_is_read(state: SlotState) -> None:
    assert unpack_header(page(state, header()), 10_000) is None


def test_every_flipped_header_byte_is_noticed() -> None:
    good = page(SlotState.READY, header())
    for position in range(16, USED_BYTES):
        bad = bytearray(good)
        bad[position] ^= 0x41
        assert unpack_header(bytes(bad), 10_000) is None, position


def test_another_version_is_an_error_that_says_so() -> None:
    bad = bytearray(page(SlotState.READY, header()))
    bad[8] = 9
    with pytest.raises(FormatError, match="different releases"):
        unpack_header(bytes(bad), 10_000)


@pytest.mark.parametrize(
    "changes",
    [
        {"meta_bytes": 2**63},
        {"meta_bytes": 6000},
        {"payload_bytes": 2**63},
        {"payload_bytes": 5000},
        {"meta_offset": 2**63},
        {"rank": 4},
    ],
)
def test_lengths_that_overflow_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(FormatError):
        unpack_header(page(SlotState.READY, header(**changes)), 10_000)


def test_a_slot_written_again_is_torn(tmp_path: Path, helpers: Any) -> None:
    path = tmp_path / "slot-0"
    first = helpers.write_slot(path, sequence=1, step=1)
    reader = Slot.open(path)
    assert first.is_same(reader.header())
    SlotWriter.open(path).begin()
    with pytest.raises(TornSlotError):
        reader.check_unchanged(first)
    helpers.write_slot(path, sequence=2, step=2)
    with pytest.raises(TornSlotError):
        reader.meta(first)


def test_a_reader_follows_a_slot_that_grows(tmp_path: Path, helpers: Any) -> None:
    path = tmp_path / "slot-0"
    reader = Slot.open(path)
    assert reader.header() is None
    helpers.write_slot(path, sequence=1, step=1, size=4096)
    assert reader.refresh()
    small = reader.capacity
    helpers.write_slot(path, sequence=2, step=2, size=1 << 20)
    assert reader.refresh()
    assert reader.capacity > small
    found = reader.header()
    assert found is not None
    assert bytes(reader.payload(found)[: 1 << 20]) == helpers.payload_of(2, 1 << 20)


def test_a_full_volume_is_one_clear_error_and_keeps_the_content(
    tmp_path: Path, helpers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "slot-0"
    kept = helpers.write_slot(path, sequence=1, step=1)

    def full(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(SharedMemoryError, match=r"slot of 64\.0 MiB does not fit.*spec.checkpoint.sharedMemory.*128Mi"):
        SlotWriter.open(path).ensure(64 << 20)
    assert kept.is_same(Slot.open(path).header())


def test_meta_is_checked(tmp_path: Path, helpers: Any) -> None:
    path = tmp_path / "slot-0"
    found = helpers.write_slot(path, sequence=1, step=1)
    slot = SlotWriter.open(path)
    slot.memory[found.meta_offset + 5] ^= 1
    with pytest.raises(FormatError, match="does not match its hash"):
        slot.meta(found)


SPEC = {
    "name": "model/w",
    "role": "model",
    "dtype": "float32",
    "shape": [2],
    "offset": 0,
    "bytes": 8,
    "replicated": False,
    "stored": True,
}


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "x" * 5000},
        {"name": "other/w"},
        {"role": "root"},
        {"dtype": "object"},
        {"dtype": 7},
        {"shape": [-1]},
        {"shape": [True]},
        {"shape": [2**40, 2**40]},
        {"shape": [1] * 100},
        {"offset": 3},
        {"offset": -64},
        {"offset": 2**63},
        {"bytes": 9},
        {"bytes": None},
        {"stored": 1},
        {"later": 1},
        {"shard": None},
        {"shard": {"shape": [4]}},
        {"shard": {"shape": [4], "start": [0], "more": 1}},
        {"shard": {"shape": [4, 4], "start": [0, 0]}},
        {"shard": {"shape": [4], "start": [-1]}},
        {"shard": {"shape": [4], "start": [True]}},
        {"shard": {"shape": [4], "start": [2**62]}},
        {"shard": {"shape": [2**60], "start": [0]}},
        {"shard": {"shape": ["4"], "start": [0]}},
    ],
)
def test_table_entries_are_validated(changes: dict[str, Any]) -> None:
    import json

    data = json.dumps({"format": 2, "replicated": False, "trees": {}, "tensors": [{**SPEC, **changes}]}).encode()
    with pytest.raises(FormatError):
        parse_meta(data, "slot-0")


def test_overlaps_gaps_and_duplicates_are_refused() -> None:
    def spec(name: str, offset: int) -> TensorSpec:
        return TensorSpec(f"model/{name}", "model", "uint8", (100,), offset, 100, replicated=False, stored=True)

    for specs in ((spec("a", 0), spec("b", 64)), (spec("a", 0), spec("b", 1 << 30)), (spec("a", 0), spec("a", 128))):
        with pytest.raises(FormatError):
            parse_meta(Meta(replicated=False, trees={}, tensors=specs).to_bytes(), "slot-0")


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"[" * 100_000, b'{"format": 1}', b"\xff"])
def test_meta_that_is_no_meta(data: bytes) -> None:
    with pytest.raises(FormatError, match="slot-0"):
        parse_meta(data, "slot-0")


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.none() | st.integers(1, 9), st.booleans()),
        min_size=2,
        max_size=2,
        unique_by=lambda slot: slot[0] or object(),
    ),
    st.booleans(),
)
def test_the_newest_readable_slot_is_never_chosen(slots: list[tuple[int | None, bool]], alive: bool) -> None:
    views = [SlotView(sequence, released) for sequence, released in slots]
    chosen = slot_to_write(views, sidecar_alive=alive)
    readable = [view.sequence for view in views if view.sequence is not None]
    if chosen is None:
        assert alive
        assert len(readable) == 2
        assert not min(views, key=lambda view: view.sequence or 0).released
    elif len(readable) == 2:
        assert views[chosen].sequence == min(readable)
    else:
        assert views[chosen].sequence is None


def test_status_round_trip_and_garbage(tmp_path: Path) -> None:
    path = tmp_path / "persisted.json"
    status = RankStatus({1: SlotStatus(7, 100, 2, Progress.FAILED, "full", "ab", 4)}, 90, 2, 3)
    write_status(path, status)
    assert read_status(path) == status
    assert status.of(1, header(sequence=7, step=100, run=2)) == status.slots[1]
    assert status.of(1, header(sequence=7, step=101, run=2)) is None
    assert status.of(0, header(sequence=7, step=100, run=2)) is None
    assert status.has_committed(80, 2)
    assert not status.has_committed(80, 3)
    for garbage in (b"", b"{", b"[1]", b'{"slots": {"0": 5, "9": {}}, "failures": "x"}'):
        path.write_bytes(garbage)
        assert read_status(path) == RankStatus()
