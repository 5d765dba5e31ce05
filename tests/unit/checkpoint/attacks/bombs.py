"""Stored bytes that would unfold without end, with hashes that fit."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import zstandard

from attacks.storage import BASE, VICTIM, attack, edit_index, edit_stored, folder, healthy
from sternpost_checkpoint.codec.base import by_name, names

RAW_BYTES = 4096 * 4


def planes(root: Path, data: bytes) -> None:
    """Other bytes for the tensor that stands alone."""
    healthy(root)
    edit_stored(root, 0, data, BASE)


@attack("where 4096 must be")
def a_frame_of_64_mib_where_4_kib_must_be(root: Path) -> None:
    frame = zstandard.ZstdCompressor().compress(bytes(1 << 26))
    planes(root, struct.pack("<I", RAW_BYTES) + struct.pack("<I", len(frame)) + frame)


@attack("")
def a_frame_that_claims_2_to_the_60(root: Path) -> None:
    """Magic, a descriptor for an 8 byte content size and a single segment, the size."""
    frame = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**60) + b"\x01\x00\x00"
    planes(root, struct.pack("<I", RAW_BYTES) + struct.pack("<I", len(frame)) + frame)


@attack("")
def a_frame_that_does_not_say_its_size(root: Path) -> None:
    compressor = zstandard.ZstdCompressor(write_content_size=False)
    frame = compressor.compress(bytes(1 << 26))
    planes(root, struct.pack("<I", RAW_BYTES) + struct.pack("<I", len(frame)) + frame)


@attack("")
def a_window_of_2_gib(root: Path) -> None:
    frame = b"\x28\xb5\x2f\xfd\x00" + bytes([0xA8]) + b"\x01\x00\x00"
    planes(root, struct.pack("<I", RAW_BYTES) + struct.pack("<I", len(frame)) + frame)


@attack("")
def a_piece_of_4_gib(root: Path) -> None:
    planes(root, struct.pack("<I", 2**32 - 1) + bytes(8))


@attack("")
def a_frame_of_4_gib(root: Path) -> None:
    planes(root, struct.pack("<I", RAW_BYTES) + struct.pack("<I", 2**32 - 1) + bytes(8))


@attack("")
def stored_bytes_that_are_empty(root: Path) -> None:
    planes(root, b"")


@attack("do not match their hash")
def a_shard_with_the_right_length_and_other_bytes(root: Path) -> None:
    healthy(root)
    path = next(folder(root, BASE).glob("*.shard"))
    path.write_bytes(path.read_bytes()[:-64] + bytes(64))


@attack("does not begin")
def a_shard_with_another_magic(root: Path) -> None:
    healthy(root)
    path = next(folder(root, VICTIM).glob("*.shard"))
    path.write_bytes(b"PK\x03\x04" + path.read_bytes()[4:])


def _garbage(codec: str, seed: int) -> None:
    def make(root: Path) -> None:
        random = np.random.default_rng(seed)
        healthy(root)
        kind = by_name(codec)
        if kind.needs_companion:
            # Of the first tensor, which has another number of elements than it: refused, or decoded to a wrong hash.
            edit_index(root, lambda index: index["stored"][1].update(codec=codec, companion=0), VICTIM)
            edit_stored(root, 1, random.bytes(int(random.integers(0, 300))), VICTIM)
        elif kind.needs_base:
            edit_index(root, lambda index: index["stored"][0].update(codec=codec), VICTIM)
            edit_stored(root, 0, random.bytes(int(random.integers(0, 300))), VICTIM)
        else:
            edit_index(root, lambda index: index["stored"][0].update(codec=codec), BASE)
            edit_stored(root, 0, random.bytes(int(random.integers(0, 300))), BASE)

    make.__name__ = f"garbage_for_{codec}_{seed}"
    attack("")(make)


for _codec in names():
    for _seed in range(3):
        _garbage(_codec, _seed)
