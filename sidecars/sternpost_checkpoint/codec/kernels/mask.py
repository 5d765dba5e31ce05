"""Compare with the base: a packed bit mask of the elements that changed, and their values."""

from __future__ import annotations

import numpy as np

from sternpost_checkpoint.codec.kernels.arrays import Array
from sternpost_checkpoint.codec.kernels.bits import population, trailing_zeros
from sternpost_checkpoint.codec.kernels.jit import kernel

_U = np.uint64
_BLOCK = 4096
"""Elements compared at a time: their flags stay in the first-level cache."""
_GATHER = np.uint64(0x0102040810204080)
"""Multiplied with eight bytes of 0 or 1: the highest byte has their bits, the first one lowest."""

VALUES_SLACK = _BLOCK + 64
"""Elements that a buffer of values must have beyond those that can change."""


@kernel
def mask_and_values(  # noqa: PLR0912 # one loop over blocks: calls would cost more than they tell
    current: Array, base: Array, flags: Array, mask: Array, values: Array
) -> int:
    """Fill `mask` (uint64, bit i of the whole: element i changed) and `values`; returns how many changed.

    `current`, `base`: unsigned integers, equal lengths. `flags`: 512 uint64 of scratch. `values`: as long as `current`
    plus VALUES_SLACK.
    """
    flag_bytes = flags.view(np.uint8)
    block, total = _U(4096), _U(0)
    for start in range(_U(0), _U(current.size), block):
        here, there = current[start : start + block], base[start : start + block]
        count = here.size
        for i in range(count):  # the compiler makes vector instructions of this
            flag_bytes[i] = np.uint8(here[i] != there[i])
        for i in range(count, (count + 63) // 64 * 64):
            flag_bytes[i] = 0
        masks, out = mask[start // _U(64) : (start + block) // _U(64)], values[total : total + _U(4096 + 64)]
        found = _U(0)
        for w in range(_U(masks.size)):
            bits = _U(0)
            for i in range(_U(8)):
                bits |= ((flags[w * _U(8) + i] * _GATHER) >> _U(56)) << (_U(8) * i)
            masks[w] = bits
            if bits == _U(0):
                continue
            first, changed = w * _U(64), population(bits)
            if changed <= _U(32):
                # Eight at a time without a look whether there are so many: a wrong guess costs more than idle copies.
                at = found
                while bits:
                    for _ in range(8):
                        out[at] = here[first + (trailing_zeros(bits) & _U(63))]
                        bits &= bits - _U(1)
                        at += _U(1)
                found += changed
            elif changed == _U(64):
                for i in range(_U(64)):
                    out[found + i] = here[first + i]
                found += _U(64)
            else:
                last = min(_U(64), _U(count) - first)
                for i in range(last):
                    out[found] = here[first + i]
                    found += (bits >> i) & _U(1)
        total += found
    return int(total)


@kernel
def select(values: Array, mask: Array, selected: Array) -> None:
    """Fill `selected` with the values whose bits of `mask` (uint64) are set; it has room for just these."""
    found = _U(0)
    for w in range(_U(mask.size)):
        bits, first = mask[w], w * _U(64)
        while bits:
            selected[found] = values[first + trailing_zeros(bits)]
            bits &= bits - _U(1)
            found += _U(1)


@kernel
def count_bits(mask: Array) -> int:
    """How many bits of the uint64 words are set."""
    total = _U(0)
    for i in range(mask.size):
        total += population(mask[i])
    return int(total)


@kernel
def apply_mask(target: Array, base: Array, mask: Array, values: Array) -> None:
    """Fill `target` with `base`, and with the next of `values` where a bit of `mask` (uint64) is set.

    The caller has checked that no bit is set behind the last element, and that there are as many values as bits.
    `values` is one element longer than that, whose value does not matter.
    """
    found = _U(0)
    for w in range(_U(mask.size)):
        bits, first = mask[w], w * _U(64)
        last = min(_U(64), _U(target.size) - first)
        there, here = base[first : first + last], target[first : first + last]
        if bits == _U(0):
            for i in range(here.size):
                here[i] = there[i]
        elif population(bits) <= _U(20):
            for i in range(here.size):
                here[i] = there[i]
            while bits:
                here[trailing_zeros(bits)] = values[found]
                bits &= bits - _U(1)
                found += _U(1)
        elif bits == ~_U(0):
            for i in range(here.size):
                here[i] = values[found + _U(i)]
            found += _U(64)
        else:
            for i in range(last):
                value, changed = values[found], (bits >> i) & _U(1)
                here[i] = value if changed else there[i]
                found += changed
