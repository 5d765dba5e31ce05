"""Dense blocks of larger tensors: what two of them share, and copying it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sternpost_checkpoint.errors import FormatError

_WORDS: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64, 16: np.complex128}
"""A numpy type as wide as the element: copying is all that is done with it."""

Extents = tuple[int, ...]


@dataclass(frozen=True)
class Block:
    """Elements `start` to `start + shape` of a tensor, in each dimension."""

    start: Extents
    shape: Extents

    @classmethod
    def whole(cls, shape: Extents) -> Block:
        """All of a tensor."""
        return cls((0,) * len(shape), shape)

    @property
    def elements(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    def overlap(self, other: Block) -> Block | None:
        """What both hold, None when that is nothing. Raises FormatError for blocks of different dimensions."""
        if len(self.shape) != len(other.shape):
            raise FormatError(f"a block of {len(self.shape)} dimensions is none of a tensor of {len(other.shape)}")
        start = tuple(map(max, self.start, other.start))
        ends = [min(a + n, b + m) for a, n, b, m in zip(self.start, self.shape, other.start, other.shape, strict=True)]
        shape = tuple(end - begin for begin, end in zip(start, ends, strict=True))
        return Block(start, shape) if all(extent > 0 for extent in shape) else None

    def within(self, outer: Block) -> tuple[slice, ...]:
        """Where it is in the array that holds `outer`."""
        return tuple(
            slice(begin - base, begin - base + extent)
            for begin, base, extent in zip(self.start, outer.start, self.shape, strict=True)
        )


def copy_overlap(target: memoryview, into: Block, source: memoryview, held: Block, item_bytes: int) -> None:
    """Copy what `held` (dense in `source`) and `into` (dense in `target`) share; both hold `item_bytes` an element."""
    shared = into.overlap(held)
    if shared is None:
        return
    word = _WORDS[item_bytes]
    to = np.frombuffer(target, dtype=word).reshape(into.shape)
    given = np.frombuffer(source, dtype=word).reshape(held.shape)
    to[shared.within(into)] = given[shared.within(held)]


def covers(wanted: Block, parts: Sequence[Block]) -> bool:
    """Whether `parts`, each cut to `wanted`, fill it without any element given twice."""
    cut = [shared for part in parts if (shared := wanted.overlap(part)) is not None]
    if sum(part.elements for part in cut) != wanted.elements:
        return False
    return not _any_overlap(cut)


def _any_overlap(parts: Sequence[Block]) -> bool:
    if len(parts) < 2 or not parts[0].shape:
        return len(parts) > 1  # of a scalar there is one element
    starts = np.array([part.start for part in parts], dtype=np.int64)
    ends = starts + np.array([part.shape for part in parts], dtype=np.int64)
    for number in range(len(parts) - 1):
        rest = slice(number + 1, None)
        if np.any(np.all((starts[rest] < ends[number]) & (starts[number] < ends[rest]), axis=1)):
            return True
    return False
