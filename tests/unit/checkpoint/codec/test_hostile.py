"""Stored bytes as an attacker would write them: FormatError or a wrong tensor, never a crash, in bounded memory."""

from __future__ import annotations

import struct
import tracemalloc
from functools import cache

import numpy as np
import pytest
from codec_cases import Case, decode, encode, weights_and_master
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_checkpoint.codec.base import by_name, names
from sternpost_checkpoint.errors import FormatError

BASE = ["mask", "mask-zstd", "mask-ans", "xor-planes", "diff-ans"]


@cache
def example(name: str) -> tuple[Case, bytes]:
    """A small tensor, and how the codec stores it."""
    master, weight = weights_and_master(300, "bfloat16")
    base = np.frombuffer(weight, np.uint16) + (np.arange(300) % 7 == 0)
    case = Case("bfloat16", weight, base.astype(np.uint16).tobytes(), master, "float32")
    if name in ("low-bits", "clusters-8", "clusters-4"):
        case = Case("float32", master, b"", weight, "bfloat16")
    return case, encode(by_name(name), case)


def survives(name: str, case: Case, stored: bytes) -> bool:
    """Whether something was decoded."""
    try:
        decode(by_name(name), case, stored)
    except FormatError as error:
        named = str(error).startswith(name)
    else:
        return True
    assert named, "the error does not say which codec it is of"
    return False


@pytest.mark.parametrize("name", names())
def test_truncated_at_every_byte(name: str) -> None:
    case, stored = example(name)
    assert survives(name, case, stored)
    for length in range(len(stored)):
        assert not survives(name, case, stored[:length])
    assert not survives(name, case, stored + b"\0")


@pytest.mark.parametrize("name", names())
def test_every_byte_flipped(name: str) -> None:
    case, stored = example(name)
    for position in range(len(stored)):
        for flip in (1, 0xFF):
            damaged = bytearray(stored)
            damaged[position] ^= flip
            survives(name, case, bytes(damaged))


@pytest.mark.parametrize("name", names())
@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_noise(name: str, data: st.DataObject) -> None:
    case, stored = example(name)
    damaged = bytearray(stored)
    for _ in range(data.draw(st.integers(1, 6))):
        start = data.draw(st.integers(0, len(damaged)))
        end = min(len(damaged), start + data.draw(st.integers(0, 12)))
        damaged[start:end] = data.draw(st.binary(max_size=12))
    survives(name, case, bytes(damaged))


@pytest.mark.parametrize("name", names())
@settings(deadline=None, max_examples=50)
@given(stored=st.binary(max_size=200), size=st.integers(0, 40))
def test_bytes_from_nowhere(name: str, stored: bytes, size: int) -> None:
    raw = bytes(8 * size)
    dtype = "float32" if name in ("low-bits", "clusters-8", "clusters-4") else "float16"
    companion, its_dtype = (bytes(4 * size), "float16") if name == "low-bits" else (bytes(16 * size), "float32")
    survives(name, Case(dtype, raw, bytes(8 * size), companion, its_dtype), stored)


@pytest.mark.parametrize("name", names())
def test_a_claim_of_four_gigabytes_costs_no_memory(name: str) -> None:
    """Each length in turn becomes the largest possible."""
    case, stored = example(name)
    tracemalloc.start()
    try:
        for position in range(len(stored) - 3):
            damaged = bytearray(stored)
            damaged[position : position + 4] = struct.pack("<I", 0xFFFFFFFF)
            survives(name, case, bytes(damaged))
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", BASE)
def test_a_mask_that_marks_more_than_there_is(name: str) -> None:
    case, stored = example(name)
    if name == "mask":
        mask = bytearray(stored)
        mask[4 + 37] |= 0x80  # element 303 of 300
        with pytest.raises(FormatError, match="behind the last one"):
            decode(by_name(name), case, bytes(mask))
        mask = bytearray(stored)
        mask[4] ^= 1
        with pytest.raises(FormatError, match="does not mark the"):
            decode(by_name(name), case, bytes(mask))
    assert survives(name, case, stored)


def test_an_exception_behind_the_last_element_is_refused() -> None:
    master, weight = weights_and_master(10, "bfloat16")
    case = Case("bfloat16", weight, b"", master, "float32")
    stored = struct.pack("<IIH", 1, 10, 0)
    with pytest.raises(FormatError, match="behind the piece's last element"):
        decode(by_name("rounded"), case, stored)
    with pytest.raises(FormatError, match="more than the 10 elements"):
        decode(by_name("rounded"), case, struct.pack("<I", 2**31))
