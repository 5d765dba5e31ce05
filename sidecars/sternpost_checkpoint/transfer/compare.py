"""How much two generations differ, tensor by tensor. Pure."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sternpost_checkpoint.transfer.numbers import numbers, words

PIECE = 4 * 2**20
"""Elements that are compared at a time, which bounds the memory that widening takes."""


@dataclass(frozen=True)
class Difference:
    """Of one tensor, between an older and a newer generation."""

    elements: int
    changed: int
    """Elements with other bits."""
    largest: float
    """The largest absolute difference; infinite or NaN values apart."""
    relative: float
    """|new - old| / |old| in the L2 norm; infinite when old is zero and new is not."""

    @property
    def share(self) -> float:
        """Of the elements, those that changed."""
        return self.changed / self.elements if self.elements else 0.0

    def to_json(self) -> dict[str, Any]:
        """JSON has no infinity: None stands for it."""
        values = {**asdict(self), "share": self.share}
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in values.items()
        }


def compare(old: memoryview, new: memoryview, dtype: str) -> Difference:
    """Compare two tensors of one dtype and one shape, given as their bytes."""
    before, after = words(old, dtype), words(new, dtype)
    elements, changed, largest, square, norm = len(before), 0, 0.0, 0.0, 0.0
    width = len(old) // elements if elements else 1
    for start in range(0, elements, PIECE):
        end = min(start + PIECE, elements)
        changed += int(np.count_nonzero(np.any(before[start:end] != after[start:end], axis=1)))
        first = numbers(old[start * width : end * width], dtype)
        second = numbers(new[start * width : end * width], dtype)
        wide: Any = np.complex128 if np.iscomplexobj(first) else np.float64
        with np.errstate(invalid="ignore", over="ignore"):
            step = np.abs(second.astype(wide) - first.astype(wide))
            size = np.abs(first.astype(wide))
        known = np.isfinite(step) & np.isfinite(size)
        if known.any():
            largest = max(largest, float(step[known].max()))
            square += float(np.sum(step[known] ** 2))
            norm += float(np.sum(size[known] ** 2))
    relative = math.sqrt(square / norm) if norm else (math.inf if square else 0.0)
    return Difference(elements, changed, largest, relative)
