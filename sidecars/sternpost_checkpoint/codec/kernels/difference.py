"""Differences of elements and their base as symbols, with the base's exponent as context.

Floats are taken as the integers that order them (-0 next to +0, and one step is one unit in the last place): a small
update is a small number there, where XOR would give the length of a carry. Small numbers are symbols of their own;
of a larger one the symbol is its length and its second bit, and the bits below stand apart, as they are.

How far an element moves in units of its last place depends on its size: an optimizer's steps are about equally large
everywhere, the unit doubles with each exponent.
"""

from __future__ import annotations

import numpy as np

from sternpost_checkpoint.codec.kernels.arrays import Array
from sternpost_checkpoint.codec.kernels.bits import load_u64, store_u64
from sternpost_checkpoint.codec.kernels.jit import helper, kernel

_U = np.uint64
EXACT = 16
"""Numbers below it are symbols."""
CONTEXTS = 16
BITS_SLACK = 16
"""Bytes that the array of loose bits must have beyond those written."""


def alphabet(width: int) -> int:
    """Symbols for elements of `width` bytes."""
    return EXACT + 2 * (8 * width - 4)


@kernel
def highest_exponent(base: Array, shift: int, mask: int) -> int:
    """The exponent that one in 512 elements exceeds, by a sample: context 0 is for it and those above."""
    counts = np.zeros(256, dtype=np.uint32)
    step = 1 if base.size < 4096 else 16
    for i in range(0, base.size, step):
        counts[(np.int64(base[i]) >> shift) & mask] += 1
    left = base.size // step // 512
    for exponent in range(255, 0, -1):
        left -= int(counts[exponent])
        if left < 0:
            return exponent
    return 0


@kernel
def exponent_contexts(base: Array, shift: int, mask: int, top: int, contexts: Array) -> None:
    """How far each exponent is below `top`, 0 to 15. `contexts`: uint8, may be longer than `base`."""
    for i in range(base.size):
        below = np.int32(top) - np.int32((base[i] >> np.uint32(shift)) & np.uint32(mask))
        contexts[i] = np.uint8(min(max(below, np.int32(0)), np.int32(15)))


@kernel
def numbers_16(current: Array, base: Array, floats: bool, numbers: Array) -> None:
    """Differences as natural numbers: 0, -1, 1, -2, … become 0, 1, 2, 3, and so on."""
    one, top, high = np.uint16(1), np.uint16(15), np.uint16(1 << 15)
    if floats:
        for i in range(current.size):
            here = np.uint16(current[i] ^ np.uint16(np.uint16(np.uint16(0) - np.uint16(current[i] >> top)) | high))
            there = np.uint16(base[i] ^ np.uint16(np.uint16(np.uint16(0) - np.uint16(base[i] >> top)) | high))
            step = np.uint16(here - there)
            numbers[i] = np.uint16(np.uint16(step << one) ^ np.uint16(np.uint16(0) - np.uint16(step >> top)))
    else:
        for i in range(current.size):
            step = np.uint16(current[i] - base[i])
            numbers[i] = np.uint16(np.uint16(step << one) ^ np.uint16(np.uint16(0) - np.uint16(step >> top)))


@kernel
def numbers_32(current: Array, base: Array, floats: bool, numbers: Array) -> None:
    """Differences as natural numbers: 0, -1, 1, -2, … become 0, 1, 2, 3, and so on."""
    one, top, high = np.uint32(1), np.uint32(31), np.uint32(1 << 31)
    if floats:
        for i in range(current.size):
            here = np.uint32(current[i] ^ np.uint32(np.uint32(np.uint32(0) - np.uint32(current[i] >> top)) | high))
            there = np.uint32(base[i] ^ np.uint32(np.uint32(np.uint32(0) - np.uint32(base[i] >> top)) | high))
            step = np.uint32(here - there)
            numbers[i] = np.uint32(np.uint32(step << one) ^ np.uint32(np.uint32(0) - np.uint32(step >> top)))
    else:
        for i in range(current.size):
            step = np.uint32(current[i] - base[i])
            numbers[i] = np.uint32(np.uint32(step << one) ^ np.uint32(np.uint32(0) - np.uint32(step >> top)))


@kernel
def apply_16(numbers: Array, base: Array, floats: bool, target: Array) -> None:
    """Undo `numbers_16`."""
    one, top, high = np.uint16(1), np.uint16(15), np.uint16(1 << 15)
    if floats:
        for i in range(target.size):
            step = np.uint16(np.uint16(numbers[i] >> one) ^ np.uint16(np.uint16(0) - np.uint16(numbers[i] & one)))
            there = np.uint16(base[i] ^ np.uint16(np.uint16(np.uint16(0) - np.uint16(base[i] >> top)) | high))
            here = np.uint16(there + step)
            target[i] = np.uint16(here ^ np.uint16(np.uint16(np.uint16(here >> top) - one) | high))
    else:
        for i in range(target.size):
            step = np.uint16(np.uint16(numbers[i] >> one) ^ np.uint16(np.uint16(0) - np.uint16(numbers[i] & one)))
            target[i] = np.uint16(base[i] + step)


@kernel
def apply_32(numbers: Array, base: Array, floats: bool, target: Array) -> None:
    """Undo `numbers_32`."""
    one, top, high = np.uint32(1), np.uint32(31), np.uint32(1 << 31)
    if floats:
        for i in range(target.size):
            step = np.uint32(np.uint32(numbers[i] >> one) ^ np.uint32(np.uint32(0) - np.uint32(numbers[i] & one)))
            there = np.uint32(base[i] ^ np.uint32(np.uint32(np.uint32(0) - np.uint32(base[i] >> top)) | high))
            here = np.uint32(there + step)
            target[i] = np.uint32(here ^ np.uint32(np.uint32(np.uint32(here >> top) - one) | high))
    else:
        for i in range(target.size):
            step = np.uint32(np.uint32(numbers[i] >> one) ^ np.uint32(np.uint32(0) - np.uint32(numbers[i] & one)))
            target[i] = np.uint32(base[i] + step)


@kernel
def symbols_16(numbers: Array, scratch: Array, symbols: Array) -> None:
    """The symbol of each number. `scratch`: float32, as long as `numbers`.

    The conversion to a float finds the length: exponent and first bit of the mantissa are what is wanted.
    """
    patterns = scratch.view(np.uint32)
    for i in range(numbers.size):
        scratch[i] = np.float32(np.int32(numbers[i]))
    for i in range(numbers.size):
        number = np.uint32(numbers[i])
        coarse = (patterns[i] >> np.uint32(22)) - np.uint32(246)
        symbols[i] = np.uint8(number if number < np.uint32(16) else coarse)


@kernel
def symbols_32(numbers: Array, scratch: Array, symbols: Array) -> None:
    """As `symbols_16`; what a float32 cannot hold exactly is halved eight times first, lest it be rounded up."""
    patterns = scratch.view(np.uint32)
    for i in range(numbers.size):
        number = numbers[i]
        scratch[i] = np.float32(np.int32(number >> np.uint32(8) if number >= np.uint32(1 << 24) else number))
    for i in range(numbers.size):
        number = numbers[i]
        halved = np.uint32(16) if number >= np.uint32(1 << 24) else np.uint32(0)
        coarse = (patterns[i] >> np.uint32(22)) - np.uint32(246) + halved
        symbols[i] = np.uint8(number if number < np.uint32(16) else coarse)


@helper
def _below(symbol: np.uint64) -> np.uint64:
    """How many bits of a number its symbol leaves open."""
    return (symbol >> _U(1)) - _U(5) if symbol >= _U(16) else _U(0)


@helper
def _low(number: np.uint64, bits: np.uint64) -> np.uint64:
    return number & ((_U(1) << bits) - _U(1))


@kernel
def write_loose(numbers: Array, symbols: Array, loose: Array) -> int:
    """Write the bits that the symbols leave open, the first lowest; returns how many bytes they take.

    `loose`: uint8, an element's width for each number and BITS_SLACK. Four numbers of 16 bits at a time: their bits
    (at most 14 each) fit into a word, and only the words wait for each other.
    """
    position, pending, filled, first = _U(0), _U(0), _U(0), _U(0)
    if numbers.itemsize == 2:
        first = _U(numbers.size) & ~_U(3)
        for i in range(_U(0), first, _U(4)):
            b0, b1 = _below(_U(symbols[i])), _below(_U(symbols[i + _U(1)]))
            b2, b3 = _below(_U(symbols[i + _U(2)])), _below(_U(symbols[i + _U(3)]))
            one = _low(_U(numbers[i]), b0) | _low(_U(numbers[i + _U(1)]), b1) << b0
            two = _low(_U(numbers[i + _U(2)]), b2) | _low(_U(numbers[i + _U(3)]), b3) << b2
            pending |= (one | two << (b0 + b1)) << filled
            store_u64(loose, position, pending)
            filled += b0 + b1 + b2 + b3
            position += filled >> _U(3)
            # All 63 bits full: a shift by 64 is none at all, but 56 are the most here.
            pending >>= filled & ~_U(7)
            filled &= _U(7)
    for i in range(first, _U(numbers.size)):
        below = _below(_U(symbols[i]))
        pending |= _low(_U(numbers[i]), below) << filled
        store_u64(loose, position, pending)
        filled += below
        position += filled >> _U(3)
        pending >>= filled & ~_U(7)
        filled &= _U(7)
    return int(position + _U(filled > _U(0)))


@helper
def _number(symbol: np.uint64, below: np.uint64, word: np.uint64) -> np.uint64:
    return (_U(2) | symbol & _U(1)) << below | _low(word, below) if symbol >= _U(16) else symbol


@kernel
def read_loose(symbols: Array, loose: Array, numbers: Array) -> int:
    """Undo `write_loose`: fill `numbers`; returns how many bytes were used, or -1 where they ended too early.

    `loose`: BITS_SLACK longer than what was stored.
    """
    position, end, first = _U(0), _U(loose.size - 16) * _U(8), _U(0)
    if numbers.itemsize == 2:
        first = _U(numbers.size) & ~_U(3)
        for i in range(_U(0), first, _U(4)):
            s0, s1, s2, s3 = _U(symbols[i]), _U(symbols[i + _U(1)]), _U(symbols[i + _U(2)]), _U(symbols[i + _U(3)])
            b0, b1, b2, b3 = _below(s0), _below(s1), _below(s2), _below(s3)
            word = load_u64(loose, position >> _U(3)) >> (position & _U(7))
            numbers[i] = _number(s0, b0, word)
            numbers[i + _U(1)] = _number(s1, b1, word >> b0)
            numbers[i + _U(2)] = _number(s2, b2, word >> (b0 + b1))
            numbers[i + _U(3)] = _number(s3, b3, word >> (b0 + b1 + b2))
            position += b0 + b1 + b2 + b3
            if position > end:
                return -1
    for i in range(first, _U(numbers.size)):
        symbol = _U(symbols[i])
        below = _below(symbol)
        word = load_u64(loose, position >> _U(3)) >> (position & _U(7))
        numbers[i] = _number(symbol, below, word)
        position += below
        if position > end:
            return -1
    return int((position + _U(7)) >> _U(3))
