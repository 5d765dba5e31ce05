"""A float32 master and the 16-bit weight that is its rounding: what one leaves open of the other."""

from __future__ import annotations

import numpy as np

from sternpost_checkpoint.codec.kernels.arrays import Array
from sternpost_checkpoint.codec.kernels.jit import kernel


@kernel
def widen_bfloat16(companion: Array, wide: Array) -> None:
    """bfloat16 (uint16) as float32 patterns (uint32), exactly."""
    for i in range(companion.size):
        wide[i] = np.uint32(companion[i]) << np.uint32(16)


@kernel
def round_bfloat16(master: Array, rounded: Array) -> None:
    """float32 patterns to the nearest bfloat16, ties to even; of NaN whatever comes of it."""
    for i in range(master.size):
        value = master[i]
        odd = (value >> np.uint32(16)) & np.uint32(1)
        rounded[i] = np.uint16((value + np.uint32(0x7FFF) + odd) >> np.uint32(16))


@kernel
def widen_float16(companion: Array, wide: Array) -> None:
    """float16 (uint16) as the patterns (uint32) of the equal float32, subnormals too; of NaN whatever comes of it."""
    values = wide.view(np.float32)
    for i in range(companion.size):
        wide[i] = (np.uint32(companion[i]) & np.uint32(0x7FFF)) << np.uint32(13)
    for i in range(companion.size):
        values[i] = values[i] * np.float32(2.0**112)  # moves the exponent's bias, exactly
    for i in range(companion.size):
        half = np.uint32(companion[i])
        special = np.uint32(0x7F800000) if half & np.uint32(0x7C00) == np.uint32(0x7C00) else np.uint32(0)
        wide[i] |= special | (half & np.uint32(0x8000)) << np.uint32(16)


@kernel
def round_float16(master: Array, scratch: Array, rounded: Array) -> None:
    """float32 patterns to the nearest float16, ties to even. `scratch`: float32, as long; of NaN a quiet NaN."""
    patterns = scratch.view(np.uint32)
    for i in range(master.size):
        patterns[i] = master[i] & np.uint32(0x7FFFFFFF)
    for i in range(master.size):
        scratch[i] = scratch[i] + np.float32(0.5)  # rounds subnormals to their unit, 2**-24
    for i in range(master.size):
        size = master[i] & np.uint32(0x7FFFFFFF)
        odd = (size >> np.uint32(13)) & np.uint32(1)
        normal = (size - np.uint32(112 << 23) + np.uint32(0xFFF) + odd) >> np.uint32(13)
        subnormal = patterns[i] - np.uint32(0x3F000000)
        huge = np.uint32(0x7E00) if size > np.uint32(0x7F800000) else np.uint32(0x7C00)
        half = subnormal if size < np.uint32(113 << 23) else normal
        half = huge if size >= np.uint32(0x47800000) else half
        rounded[i] = np.uint16(half | (master[i] >> np.uint32(16)) & np.uint32(0x8000))


@kernel
def count_far(master: Array, wide: Array) -> int:
    """How many patterns are not within -32768 to 32767 of their companion's."""
    far = np.uint32(0)
    for i in range(master.size):
        far += np.uint32(np.uint32(master[i] - wide[i] + np.uint32(0x8000)) > np.uint32(0xFFFF))
    return int(far)


@kernel
def distances(master: Array, wide: Array, low: Array, high: Array) -> bool:
    """The difference's lowest two bytes, the higher one moved by 128; returns whether an element was far."""
    far = np.uint32(0)
    for i in range(master.size):
        distance = np.uint32(np.uint32(master[i] - wide[i]) + np.uint32(0x8000))
        low[i] = np.uint8(distance)
        high[i] = np.uint8(distance >> np.uint32(8))
        far = np.uint32(far | distance >> np.uint32(16))
    return bool(far != np.uint32(0))


@kernel
def from_distances(low: Array, high: Array, wide: Array, master: Array) -> None:
    """Undo `distances`, for all elements that are not far."""
    for i in range(master.size):
        distance = np.uint32(high[i]) << np.uint32(8) | np.uint32(low[i])
        master[i] = np.uint32(wide[i] + distance - np.uint32(0x8000))


@kernel
def find_far(master: Array, wide: Array, places: Array) -> None:
    """The indexes of the elements that `count_far` counts."""
    found = 0
    for i in range(master.size):
        if np.uint32(master[i] - wide[i] + np.uint32(0x8000)) > np.uint32(0xFFFF):
            places[found] = i
            found += 1


@kernel
def count_different(one: Array, other: Array) -> int:
    """How many elements differ."""
    different = np.uint32(0)
    for i in range(one.size):
        different += np.uint32(one[i] != other[i])
    return int(different)


@kernel
def find_different(one: Array, other: Array, places: Array) -> None:
    """The indexes of the elements that `count_different` counts."""
    found = 0
    for i in range(one.size):
        if one[i] != other[i]:
            places[found] = i
            found += 1
