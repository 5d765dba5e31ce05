"""A part of a tensor that stands for the whole: runs of elements, spread over it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sternpost_checkpoint.format.dtypes import ITEM_BYTES

RUN_ELEMENTS = 8192
"""Long enough for a compressor to find its feet, short enough to meet rows that were not touched."""
MIN_BYTES = 64 * 2**10
SHARE = 32
"""One byte of so many is looked at."""
MAX_BYTES = 2**20
THOROUGH_SHARE = 4
THOROUGH_MIN_BYTES = 2 * 2**20
"""Rows of an embedding differ so much that codecs change their order from one sample to the next."""
THOROUGH_MAX_BYTES = 8 * 2**20
"""With `prefer: size`."""


@dataclass(frozen=True)
class Sample:
    """Which elements; the same ones of a tensor, of its base and of its companion."""

    elements: int
    """Of the tensor."""
    starts: Sequence[int]
    run: int

    @property
    def is_whole(self) -> bool:
        """Nothing is left out."""
        return self.run >= self.elements

    def of(self, raw: memoryview, dtype: str) -> memoryview:
        """The sampled elements of a tensor, one run behind the other; the tensor itself where all are sampled."""
        if self.is_whole:
            return raw
        width = ITEM_BYTES[dtype]
        data = np.frombuffer(raw, dtype=np.uint8)
        return np.concatenate([data[start * width : (start + self.run) * width] for start in self.starts]).data


@functools.lru_cache(maxsize=4096)
def sample_of(size: int, dtype: str, *, thorough: bool) -> Sample:
    """Choose the sample of a tensor of `size` bytes."""
    width = ITEM_BYTES[dtype]
    elements = size // width
    wanted = max(THOROUGH_MIN_BYTES, size // THOROUGH_SHARE) if thorough else max(MIN_BYTES, size // SHARE)
    runs = min(wanted, THOROUGH_MAX_BYTES if thorough else MAX_BYTES) // (RUN_ELEMENTS * width)
    if runs < 1 or runs * RUN_ELEMENTS >= elements:
        return Sample(elements, (0,), elements)
    starts = np.linspace(0, elements - RUN_ELEMENTS, runs, dtype=np.int64)
    return Sample(elements, tuple(int(start) // 64 * 64 for start in starts), RUN_ELEMENTS)


def changed_share(raw: memoryview, base: memoryview, dtype: str) -> float:
    """p: the share of the elements whose bits differ from the base's. Both dense, as many elements."""
    width = ITEM_BYTES[dtype]
    unit = np.dtype(f"u{min(width, 8)}")
    now, before = np.frombuffer(raw, dtype=unit), np.frombuffer(base, dtype=unit)
    if not len(now):
        return 0.0
    differs = now != before
    if width > 8:  # complex128: either half
        differs = differs.reshape(-1, 2).any(axis=1)
    return float(np.count_nonzero(differs)) / len(differs)


def entropy_bits(raw: memoryview, dtype: str) -> float:
    """Bits that a byte holds on average, as far as the histogram of each byte plane tells: 0 to 8."""
    planes = np.frombuffer(raw, dtype=np.uint8).reshape(-1, ITEM_BYTES[dtype])
    if not len(planes):
        return 0.0
    bits = 0.0
    for plane in range(planes.shape[1]):
        counts = np.bincount(planes[:, plane], minlength=256)
        shares = counts[counts > 0] / len(planes)
        bits -= float(np.sum(shares * np.log2(shares)))
    return bits / planes.shape[1]
