from __future__ import annotations

import numpy as np
import pytest
from codec_cases import Case, cases, decode, encode, weights_and_master
from hypothesis import assume, given, settings

from sternpost_checkpoint.codec.base import Beside, NotEncodable, by_name, names
from sternpost_checkpoint.errors import FormatError
from sternpost_checkpoint.format.dtypes import ITEM_BYTES

ALONE = [name for name in names() if by_name(name).lossless and not by_name(name).needs_companion]
WITH_BASE = [name for name in ALONE if by_name(name).needs_base]


@pytest.mark.parametrize("name", ALONE)
@settings(deadline=None, max_examples=60)
@given(case=cases())
def test_what_is_decoded_is_what_was_encoded(name: str, case: Case) -> None:
    codec = by_name(name)
    try:
        stored = encode(codec, case)
    except NotEncodable:
        assume(False)
    assert decode(codec, case, stored) == case.raw
    assert encode(codec, case) == stored


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("dtype", ["uint8", "bfloat16", "float32", "float64", "complex128"])
def test_several_pieces(name: str, dtype: str) -> None:
    size = (2**18 * 2 + 77) // max(1, ITEM_BYTES[dtype] // 8)
    generator = np.random.default_rng(1)
    base = generator.integers(0, 200, size * ITEM_BYTES[dtype]).astype(np.uint8)
    current = base + (generator.random(len(base)) < 0.1)
    case, codec = Case(dtype, current.astype(np.uint8).tobytes(), base.tobytes()), by_name(name)
    try:
        pieces = list(codec.encode(memoryview(case.raw), dtype, case.beside(codec)))
    except NotEncodable:
        return
    assert len(pieces) > 1 or len(case.raw) <= 4 * 2**20
    assert decode(codec, case, b"".join(bytes(piece) for piece in pieces)) == case.raw


@pytest.mark.parametrize("name", ALONE)
def test_unaligned_memory(name: str) -> None:
    """The kernels read words: what lies at an odd address is copied first, on either side."""
    values = np.arange(1001, dtype=np.float32)
    case, codec = Case("float32", values.tobytes(), (values + 1).tobytes()), by_name(name)
    shifted = Case("float32", b"", b"")
    raw, base = memoryview(b"x" + case.raw)[1:], memoryview(b"x" + case.base)[1:]
    beside = Beside(base=base).for_codec(codec)
    stored = b"".join(bytes(piece) for piece in codec.encode(raw, "float32", beside))
    assert stored == encode(codec, case)
    target = bytearray(1 + len(case.raw))
    codec.decode(memoryview(b"x" + stored)[1:], memoryview(target)[1:], shifted.dtype, beside)
    assert target[1:] == case.raw


@pytest.mark.parametrize("name", WITH_BASE)
def test_without_a_base_nothing_is_encoded_or_decoded(name: str) -> None:
    codec = by_name(name)
    with pytest.raises(NotEncodable, match="no base of the same size"):
        codec.encode(memoryview(bytes(8)), "float32")
    with pytest.raises(NotEncodable, match="no base of the same size"):
        codec.encode(memoryview(bytes(8)), "float32", Beside(base=memoryview(bytes(4))))
    with pytest.raises(FormatError, match="only with its base"):
        codec.decode(memoryview(bytes(8)), memoryview(bytearray(8)), "float32")
    with pytest.raises(FormatError, match="the base has 4 bytes where 8 are needed"):
        codec.decode(memoryview(bytes(8)), memoryview(bytearray(8)), "float32", Beside(base=memoryview(bytes(4))))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("size", [0, 1, 7, 4096, 2**18 + 3])
def test_a_master_from_its_weight_and_a_weight_from_its_master(dtype: str, size: int) -> None:
    master, weight = weights_and_master(size, dtype)
    low, rounded = Case("float32", master, b"", weight, dtype), Case(dtype, weight, b"", master, "float32")
    stored = encode(by_name("low-bits"), low)
    assert decode(by_name("low-bits"), low, stored) == master
    if size > 4000:
        # 16 bits are left of a master whose weight is bfloat16; a distance from float16 has 13.
        assert len(stored) * 8 / size < (16.1 if dtype == "bfloat16" else 13.4)
    stored = encode(by_name("rounded"), rounded)
    assert decode(by_name("rounded"), rounded, stored) == weight
    assert len(stored) < 40 + size // 1000


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_ties_and_strange_values_stand_in_the_list(dtype: str) -> None:
    # Ties to even, in both directions; NaN with payloads, infinities, zeros, subnormals, values too large for float16.
    strange = [
        0x3F808000,
        0x3F818000,
        0x3F801000,
        0x3F803000,
        0x7FC00001,
        0x7F800001,
        0xFF800000,
        0x80000000,
        1,
        0x477FF000,
    ]
    master = np.frombuffer(weights_and_master(5000, dtype)[0], np.uint32).copy()
    master[: len(strange)] = strange
    with np.errstate(all="ignore"):
        if dtype == "float16":
            weight = master.view(np.float32).astype(np.float16).tobytes()
        else:
            bits = master.astype(np.uint64)
            weight = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16).tobytes()
    low = Case("float32", master.tobytes(), b"", weight, dtype)
    assert decode(by_name("low-bits"), low, encode(by_name("low-bits"), low)) == low.raw
    rounded = Case(dtype, weight, b"", master.tobytes(), "float32")
    assert decode(by_name("rounded"), rounded, encode(by_name("rounded"), rounded)) == weight


@pytest.mark.parametrize("name", ["low-bits", "rounded"])
def test_a_companion_that_is_none_is_refused(name: str) -> None:
    codec = by_name(name)
    master, weight = weights_and_master(4000, "bfloat16")
    other = weights_and_master(4000, "bfloat16", seed=5)[1]
    dtype, raw = ("float32", master) if name == "low-bits" else ("bfloat16", other)
    companion, its_dtype = (other, "bfloat16") if name == "low-bits" else (master, "float32")
    with pytest.raises(NotEncodable, match="is not the rounding of"):
        codec.encode(memoryview(raw), dtype, Beside(companion=memoryview(companion), companion_dtype=its_dtype))
    with pytest.raises(NotEncodable, match="no companion of as many elements"):
        codec.encode(memoryview(raw), dtype, Beside(companion=memoryview(companion)[:-4], companion_dtype=its_dtype))
    with pytest.raises(NotEncodable, match="not for float64"):
        codec.encode(memoryview(raw), "float64", Beside(companion=memoryview(companion), companion_dtype=its_dtype))
    with pytest.raises(FormatError, match="only with its companion"):
        codec.decode(memoryview(b""), memoryview(bytearray(raw)), dtype, Beside(companion_dtype=its_dtype))
    assert len(weight) == len(other)


@pytest.mark.parametrize(
    ("name", "share", "at_least"),
    [
        ("mask", 0.01, 13),
        ("mask-zstd", 0.01, 20),
        ("mask-ans", 0.01, 60),
        ("diff-ans", 0.01, 70),
        ("xor-planes", 0.01, 25),
    ],
)
def test_ratios_where_little_changed(name: str, share: float, at_least: float) -> None:
    """Weights that moved by one unit in the last place, the smaller ones more often."""
    generator = np.random.default_rng(3)
    base = np.frombuffer(weights_and_master(2**18, "bfloat16")[1], np.uint16)
    current = base + (generator.random(len(base)) < share).astype(np.uint16)
    case = Case("bfloat16", current.tobytes(), base.tobytes())
    assert len(case.raw) / len(encode(by_name(name), case)) > at_least


def test_float_ans_beats_planes_on_weights() -> None:
    for dtype, raw in (
        ("bfloat16", weights_and_master(2**18, "bfloat16")[1]),
        ("float32", weights_and_master(2**18, "bfloat16")[0]),
    ):
        case = Case(dtype, raw, b"")
        assert len(encode(by_name("float-ans"), case)) < len(encode(by_name("zstd-planes"), case))
