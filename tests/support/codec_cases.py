"""Tensors for tests of codecs: what hypothesis draws, and how a codec is called with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from sternpost_checkpoint.codec.base import Beside, Codec
from sternpost_checkpoint.format.dtypes import ITEM_BYTES

SPECIAL = {
    # ±0, the smallest and largest subnormal, the smallest and largest normal, ±infinity, NaN with payloads
    2: [
        0,
        0x8000,
        1,
        0x007F,
        0x0080,
        0x7F7F,
        0x7F80,
        0xFF80,
        0x7FC0,
        0x7F81,
        0xFFFF,
        0x03FF,
        0x0400,
        0x7BFF,
        0x7C00,
        0x7E01,
    ],
    4: [
        0,
        0x80000000,
        1,
        0x007FFFFF,
        0x00800000,
        0x7F7FFFFF,
        0x7F800000,
        0xFF800000,
        0x7FC00000,
        0x7F800001,
        0xFFFFFFFF,
    ],
}
SIZES = st.one_of(st.sampled_from([0, 1, 2, 3, 4, 5, 7, 8, 9, 63, 64, 65, 127]), st.integers(0, 3000))


@dataclass(frozen=True)
class Case:
    """One tensor with whatever it may be encoded against."""

    dtype: str
    raw: bytes
    base: bytes
    companion: bytes = b""
    companion_dtype: str = "bfloat16"

    def beside(self, codec: Codec) -> Beside:
        """What `codec` needs of it."""
        return Beside(memoryview(self.base), memoryview(self.companion), self.companion_dtype).for_codec(codec)


def encode(codec: Codec, case: Case) -> bytes:
    """All stored bytes."""
    return b"".join(bytes(piece) for piece in codec.encode(memoryview(case.raw), case.dtype, case.beside(codec)))


def decode(codec: Codec, case: Case, stored: bytes) -> bytes:
    """The decoded tensor, of the size of the case's."""
    target = bytearray(len(case.raw))
    codec.decode(memoryview(stored), memoryview(target), case.dtype, case.beside(codec))
    return bytes(target)


@st.composite
def cases(draw: st.DrawFn, dtypes: tuple[str, ...] = tuple(sorted(ITEM_BYTES))) -> Case:
    """Weights, noise, constants, special values; unchanged, changed here and there, or all anew."""
    dtype, size = draw(st.sampled_from(dtypes)), draw(SIZES)
    width = ITEM_BYTES[dtype]
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    base = _content(draw(st.sampled_from(["weights", "noise", "equal", "special"])), width, size, generator)
    current = base.copy()
    change = draw(st.sampled_from(["none", "some", "small steps", "all", "unrelated"]))
    if change == "unrelated":
        current = _content("noise", width, size, generator)
    elif change != "none" and size:
        share = {"some": 0.05, "small steps": 0.5, "all": 1.0}[change]
        rows = current.reshape(size, width)
        chosen = generator.random(size) < share
        rows[chosen, 0] = rows[chosen, 0] + generator.integers(1, 4, int(chosen.sum())).astype(np.uint8)
    return Case(dtype, current.tobytes(), base.tobytes())


def _content(
    kind: str, width: int, size: int, generator: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    if kind == "equal":
        return np.tile(generator.integers(0, 256, width).astype(np.uint8), size)
    if kind == "special" and width in SPECIAL:
        values = np.array(SPECIAL[width], dtype=np.uint16 if width == 2 else np.uint32)
        return generator.choice(values, size).view(np.uint8)
    if kind == "weights":
        floats = (generator.standard_normal(-(-size * width // 4)) * 0.02).astype(np.float32)
        if width == 2:
            return (
                (floats if not size else np.resize(floats, size))
                .view(np.uint32)
                .astype(np.uint64)
                .__rshift__(16)
                .astype(np.uint16)
                .view(np.uint8)
            )
        return floats.view(np.uint8)[: size * width].copy()
    return generator.integers(0, 256, size * width).astype(np.uint8)


def weights_and_master(size: int, dtype: str, seed: int = 0) -> tuple[bytes, bytes]:
    """A float32 master and its rounding to bfloat16 or float16 (with numpy's own arithmetic), as bytes."""
    master = (np.random.default_rng(seed).standard_normal(size) * 0.02).astype(np.float32)
    if dtype == "float16":
        return master.tobytes(), master.astype(np.float16).tobytes()
    bits = master.view(np.uint32).astype(np.uint64)
    return master.tobytes(), ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16).tobytes()
