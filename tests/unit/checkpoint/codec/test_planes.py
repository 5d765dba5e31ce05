from __future__ import annotations

import struct

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_checkpoint.codec.base import PIECE_BYTES, Codec, by_name
from sternpost_checkpoint.codec.planes import PlanesCodec
from sternpost_checkpoint.codec.raw import RawCodec
from sternpost_checkpoint.errors import FormatError
from sternpost_checkpoint.format.dtypes import ITEM_BYTES

CODECS = [RawCodec(), PlanesCodec()]


def encode(codec: Codec, raw: bytes, dtype: str) -> bytes:
    return b"".join(bytes(piece) for piece in codec.encode(memoryview(raw), dtype))


def decode(codec: Codec, stored: bytes, size: int, dtype: str) -> bytes:
    target = bytearray(size)
    codec.decode(memoryview(stored), memoryview(target), dtype)
    return bytes(target)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@settings(deadline=None, max_examples=50)
@given(data=st.binary(max_size=3000), dtype=st.sampled_from(sorted(ITEM_BYTES)))
def test_round_trip(codec: Codec, data: bytes, dtype: str) -> None:
    raw = data[: len(data) // ITEM_BYTES[dtype] * ITEM_BYTES[dtype]]
    assert decode(by_name(codec.name), encode(codec, raw, dtype), len(raw), dtype) == raw


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_several_pieces(codec: Codec) -> None:
    raw = np.random.default_rng(1).standard_normal(PIECE_BYTES // 4 * 2 + 77).astype(np.float32).tobytes()
    pieces = list(codec.encode(memoryview(raw), "float32"))
    assert len(pieces) == 3
    assert decode(codec, b"".join(bytes(piece) for piece in pieces), len(raw), "float32") == raw


def test_planes_compress_weights() -> None:
    raw = (np.random.default_rng(1).standard_normal(100_000) * 0.02).astype(np.float32).tobytes()
    assert len(encode(PlanesCodec(), raw, "float32")) < 0.9 * len(raw)


@settings(deadline=None, max_examples=100)
@given(position=st.integers(0, 10**6), flip=st.integers(1, 255), cut=st.booleans())
def test_damage_raises_or_gives_bytes_of_the_right_size(position: int, flip: int, cut: bool) -> None:
    raw = np.arange(500, dtype=np.float32).tobytes()
    stored = bytearray(encode(PlanesCodec(), raw, "float32"))
    position %= len(stored)
    if cut:
        del stored[position:]
    else:
        stored[position] ^= flip
    try:
        decode(PlanesCodec(), bytes(stored), len(raw), "float32")  # a flip that zstd does not notice: the hash does
    except FormatError:
        return
    assert not cut


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    frame = zstandard.ZstdCompressor().compress(bytes(1 << 30 >> 4))
    stored = struct.pack("<IBI", 100, 1, len(frame)) + frame
    with pytest.raises(FormatError, match="claims 67108864 bytes where 100 must be"):
        decode(PlanesCodec(), stored, 100, "uint8")


def test_an_unknown_codec_is_named() -> None:
    with pytest.raises(FormatError, match="'pickle' is unknown"):
        by_name("pickle")
