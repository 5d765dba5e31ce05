"""Views of tensors' bytes, in the very types that the kernels are compiled for."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def elements(raw: memoryview, width: int) -> Array:
    """`raw` as unsigned integers of `width` bytes, read-only.

    Copied only where the memory is not aligned to them. Read-only on purpose: numba compiles anew for each mix of
    writable and read-only arguments.
    """
    array = np.frombuffer(raw, dtype=UNSIGNED[width])
    if not array.flags.aligned:
        array = array.copy()
    array.flags.writeable = False
    return array


def writable(raw: memoryview, width: int) -> tuple[Array, bool]:
    """`raw` as integers to be filled; (scratch memory, True) where that is not aligned, for `finish`."""
    array = np.frombuffer(raw, dtype=UNSIGNED[width])
    if array.flags.aligned and array.flags.writeable:
        return array, False
    return np.empty(len(array), dtype=UNSIGNED[width]), True


def finish(raw: memoryview, target: Array, copied: bool) -> None:
    """Bring what `writable` gave, and has been filled since, to where it belongs."""
    if copied:
        np.frombuffer(raw, dtype=np.uint8)[:] = target.view(np.uint8)


def words(bits: int) -> Array:
    """Zeroed uint64 words for so many bits."""
    return np.zeros((bits + 63) // 64, dtype=np.uint64)
