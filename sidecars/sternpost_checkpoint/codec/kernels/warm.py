"""Compile every kernel for every element type: `python -m sternpost_checkpoint.codec.kernels.warm`, when an image is built.

Small arrays go through all codecs, there and back; what is compiled lands in the cache (`jit.CACHE_VARIABLE`).
"""

from __future__ import annotations

import numpy as np

from sternpost_checkpoint.codec.base import Beside, NotEncodable, by_name, names
from sternpost_checkpoint.codec.moments import encode_moments
from sternpost_checkpoint.format.dtypes import ITEM_BYTES

ELEMENTS = 4096


def warm() -> None:
    """Encode and decode tensors of all dtypes with all codecs, with and without a base."""
    chance = np.random.default_rng(0)
    master = chance.standard_normal(ELEMENTS).astype(np.float32)
    halves = {"bfloat16": _rounded(master), "float16": master.astype(np.float16).view(np.uint16)}
    for dtype, width in ITEM_BYTES.items():
        if dtype in halves:
            raw = halves[dtype].tobytes()
        elif dtype == "float32":
            raw = master.tobytes()
        else:
            raw = chance.integers(0, 256, ELEMENTS * width, dtype=np.uint8).tobytes()
        base = bytearray(raw)
        base[:: 64 * width] = bytes(len(base[:: 64 * width]))
        for companion_dtype, companion in halves.items():
            for name in names():
                _there_and_back(name, (raw, dtype), bytes(base), (companion.tobytes(), companion_dtype))
    first, second = memoryview(master.tobytes()), memoryview((np.square(master) * np.float32(1e-4)).tobytes())
    for codec in ("clusters-8", "clusters-4"):
        encode_moments(first, second, codec=codec, bound=10.0)


def _rounded(master: np.ndarray[tuple[int], np.dtype[np.float32]]) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    # Round to nearest; that ties do not go to even does not matter for what is compiled.
    return ((master.view(np.uint32).astype(np.uint64) + 0x8000) >> 16).astype(np.uint16)


def _there_and_back(name: str, tensor: tuple[bytes, str], base: bytes, companion: tuple[bytes, str]) -> None:
    codec = by_name(name)
    raw, dtype = tensor
    beside = Beside(memoryview(base), memoryview(companion[0]), companion[1]).for_codec(codec)
    try:
        pieces = codec.encode(memoryview(raw), dtype, beside)
        stored = memoryview(b"".join(bytes(piece) for piece in pieces))
    except NotEncodable:
        return
    target = memoryview(bytearray(len(raw)))
    codec.decode(stored, target, dtype, beside)


if __name__ == "__main__":
    warm()
