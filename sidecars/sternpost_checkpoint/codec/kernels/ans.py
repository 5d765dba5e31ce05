"""Entropy coding of symbols: range ANS with four interleaved states, and a frequency table for each context.

The symbols of a piece lie in four quarters, and each quarter has a state of its own: four independent chains keep the
processor busy. A state is 15 to 31 bits wide and gives or takes 16 bits at a time. Frequencies of a context add up to
4096. Encoding runs from the last symbol to the first, so that decoding runs forward.
"""

from __future__ import annotations

import numpy as np

from sternpost_checkpoint.codec.kernels.arrays import Array
from sternpost_checkpoint.codec.kernels.jit import helper, kernel

_U = np.uint64
SCALE_BITS = 12
SCALE = 1 << SCALE_BITS
LOWEST = 1 << 15
"""States are at least this, and below 2**31."""
WORDS_SLACK = 16
"""Words that an output must have beyond one for each symbol."""

_LOW_32 = np.uint64(0xFFFFFFFF)


@kernel
def count(symbols: Array, contexts: Array | None, counts: Array) -> None:
    """Count symbols. `counts`: zeroed uint32 (4, contexts, alphabet); four, lest equal neighbours wait for each other."""
    quarter = symbols.size // 4
    for i in range(quarter):
        for q in range(4):
            at = q * quarter + i
            counts[q, 0 if contexts is None else contexts[at], symbols[at]] += 1


@kernel
def normalize(counts: Array, frequencies: Array) -> None:
    """Scale counts (4, contexts, alphabet) to `frequencies` (contexts, alphabet): uint16, sum 4096 or all zero."""
    for c in range(frequencies.shape[0]):
        total, largest, most = 0, 0, 0
        for a in range(frequencies.shape[1]):
            n = int(counts[0, c, a]) + int(counts[1, c, a]) + int(counts[2, c, a]) + int(counts[3, c, a])
            total += n
            if n > most:
                largest, most = a, n
        left = 4096 if total else 0
        for a in range(frequencies.shape[1]):
            n = int(counts[0, c, a]) + int(counts[1, c, a]) + int(counts[2, c, a]) + int(counts[3, c, a])
            share = max(1, (n * 4096 + total // 2) // total) if n else 0
            frequencies[c, a] = share
            left -= share
        while left < 0:  # each symbol that occurs needs at least 1: the most frequent ones pay
            for a in range(frequencies.shape[1]):
                if frequencies[c, a] > frequencies[c, largest]:
                    largest = a
            paid = min(-left, max(1, int(frequencies[c, largest]) // 8))
            frequencies[c, largest] -= paid
            left += paid
        frequencies[c, largest] += left


@kernel
def write_frequencies(frequencies: Array, out: Array) -> int:
    """Write the table to uint8 `out` (2 bytes an entry suffice); returns the length.

    0 to 127 in one byte, more in two: high bits with the top bit set, then the low byte. Behind a 0: how many zeros
    follow it, at most 255; a row's end does not interrupt them.
    """
    flat, position, i = frequencies.ravel(), 0, 0
    while i < flat.size:
        value = int(flat[i])
        i += 1
        if value == 0:
            run = 0
            while run < 255 and i < flat.size and flat[i] == 0:
                run += 1
                i += 1
            out[position], out[position + 1] = 0, run
            position += 2
        elif value < 128:
            out[position] = value
            position += 1
        else:
            out[position], out[position + 1] = 0x80 | (value >> 8), value & 0xFF
            position += 2
    return position


@kernel
def read_frequencies(data: Array, frequencies: Array) -> int:
    """Fill the table from uint8 `data`; returns the length read, or -1 for a malformed one."""
    flat, position, i = frequencies.reshape(frequencies.size), 0, 0
    while i < flat.size:
        if position >= data.size:
            return -1
        value = int(data[position])
        position += 1
        if value == 0 or value >= 128:
            if position >= data.size:
                return -1
            second = int(data[position])
            position += 1
            if value == 0:
                if second >= flat.size - i:
                    return -1
                for _ in range(second + 1):
                    flat[i] = 0
                    i += 1
                continue
            value = (value & 0x7F) << 8 | second
        flat[i] = value
        i += 1
    for c in range(frequencies.shape[0]):
        total = 0
        for a in range(frequencies.shape[1]):
            total += int(frequencies[c, a])
        if total not in (0, 4096):
            return -1
    return position


@kernel
def encoder_table(frequencies: Array, table: Array) -> None:
    """Pack for each symbol of each context what encoding needs into uint64 `table`, row by row.

    From the lowest bit: 32 bits reciprocal of the frequency, 13 bias, 12 complement (4096 - frequency), 6 shift.
    """
    alphabet = frequencies.shape[1]
    for c in range(frequencies.shape[0]):
        start = 0
        for a in range(alphabet):
            frequency, shift = int(frequencies[c, a]), 0
            if frequency == 0:
                continue
            while frequency > 1 << shift:
                shift += 1
            # x // frequency == x * reciprocal >> 31 + shift, exactly, for x < 2**31; 1 has no such reciprocal.
            reciprocal = ((1 << (shift + 31)) + frequency - 1) // frequency if frequency > 1 else 0xFFFFFFFF
            bias = start if frequency > 1 else start + 4095
            entry = _U(reciprocal) | _U(bias) << _U(32) | _U(4096 - frequency) << _U(45)
            table[c * alphabet + a] = entry | _U(max(shift - 1, 0)) << _U(57)
            start += frequency


@helper
def _quarters(values: Array) -> tuple[Array, Array, Array, Array]:
    quarter = values.size // 4
    return values[:quarter], values[quarter : 2 * quarter], values[2 * quarter : 3 * quarter], values[3 * quarter :]


@helper
def _push(state: np.uint64, entry: np.uint64, words: Array, position: np.uint64) -> tuple[np.uint64, np.uint64]:
    complement = (entry >> _U(45)) & _U(0xFFF)
    words[position] = state
    full = _U(state >= (_U(4096) - complement) << _U(19))
    position -= full
    state >>= full << _U(4)
    quotient = (state * (entry & _LOW_32)) >> (_U(32) + (entry >> _U(57)))
    return state + ((entry >> _U(32)) & _U(0x1FFF)) + quotient * complement, position


@kernel
def encode(  # noqa: PLR0917 # a kernel takes no keywords
    symbols: Array, contexts: Array | None, alphabet: int, table: Array, words: Array, states: Array
) -> int:
    """Fill uint16 `words` from its end; returns how many are used. `states`: the four last ones, uint32.

    `symbols`, `contexts`: uint8, a multiple of 4 long.
    """
    quarter, width = symbols.size // 4, _U(alphabet)
    s0, s1, s2, s3 = _quarters(symbols)
    x0 = x1 = x2 = x3 = _U(1 << 15)
    position = _U(words.size - 1)
    if contexts is None:
        for k in range(_U(quarter)):
            j = _U(quarter - 1) - k
            x3, position = _push(x3, table[s3[j]], words, position)
            x2, position = _push(x2, table[s2[j]], words, position)
            x1, position = _push(x1, table[s1[j]], words, position)
            x0, position = _push(x0, table[s0[j]], words, position)
    else:
        c0, c1, c2, c3 = _quarters(contexts)
        for k in range(_U(quarter)):
            j = _U(quarter - 1) - k
            x3, position = _push(x3, table[_U(c3[j]) * width + _U(s3[j])], words, position)
            x2, position = _push(x2, table[_U(c2[j]) * width + _U(s2[j])], words, position)
            x1, position = _push(x1, table[_U(c1[j]) * width + _U(s1[j])], words, position)
            x0, position = _push(x0, table[_U(c0[j]) * width + _U(s0[j])], words, position)
    states[0], states[1], states[2], states[3] = x0, x1, x2, x3
    return int(words.size - 1 - np.int64(position))


@kernel
def decoder_table(frequencies: Array, table: Array) -> None:
    """Fill uint32 `table` (contexts * 4096, zeroed): 8 bits symbol, 12 frequency - 1, 12 place inside of the symbol."""
    for c in range(frequencies.shape[0]):
        start = c * 4096
        for a in range(frequencies.shape[1]):
            frequency = int(frequencies[c, a])
            for i in range(frequency):
                table[start + i] = a | (frequency - 1) << 8 | i << 20
            start += frequency


@helper
def _pull(state: np.uint64, entry: np.uint64, words: Array, position: np.uint64) -> tuple[np.uint64, np.uint64]:
    state = (((entry >> _U(8)) & _U(0xFFF)) + _U(1)) * (state >> _U(12)) + (entry >> _U(20))
    # Arithmetic instead of a branch, which would be guessed wrongly every few symbols.
    empty = _U(state < _U(1 << 15))
    state = state << (empty << _U(4)) | _U(words[position]) & (_U(0) - empty)
    return state, position + empty


@kernel
def decode(words: Array, contexts: Array | None, table: Array, states: Array, symbols: Array) -> bool:
    """Fill `symbols`; False when the words do not end where the symbols do.

    `words`: WORDS_SLACK longer than what was stored, so that a look behind the end is still inside; the states are
    below 2**31. All symbols are of the table, whatever the words.
    """
    quarter, end = symbols.size // 4, _U(words.size - 16)
    s0, s1, s2, s3 = _quarters(symbols)
    x0, x1, x2, x3 = _U(states[0]), _U(states[1]), _U(states[2]), _U(states[3])
    position, mask = _U(0), _U(4095)
    if contexts is None:
        for j in range(_U(quarter)):
            e0, e1, e2, e3 = _U(table[x0 & mask]), _U(table[x1 & mask]), _U(table[x2 & mask]), _U(table[x3 & mask])
            s0[j], s1[j], s2[j], s3[j] = e0 & _U(255), e1 & _U(255), e2 & _U(255), e3 & _U(255)
            x0, position = _pull(x0, e0, words, position)
            x1, position = _pull(x1, e1, words, position)
            x2, position = _pull(x2, e2, words, position)
            x3, position = _pull(x3, e3, words, position)
            if position > end:
                return False
    else:
        c0, c1, c2, c3 = _quarters(contexts)
        twelve = _U(12)
        for j in range(_U(quarter)):
            e0, e1 = _U(table[_U(c0[j]) << twelve | x0 & mask]), _U(table[_U(c1[j]) << twelve | x1 & mask])
            e2, e3 = _U(table[_U(c2[j]) << twelve | x2 & mask]), _U(table[_U(c3[j]) << twelve | x3 & mask])
            s0[j], s1[j], s2[j], s3[j] = e0 & _U(255), e1 & _U(255), e2 & _U(255), e3 & _U(255)
            x0, position = _pull(x0, e0, words, position)
            x1, position = _pull(x1, e1, words, position)
            x2, position = _pull(x2, e2, words, position)
            x3, position = _pull(x3, e3, words, position)
            if position > end:
                return False
    low = _U(1 << 15)
    return bool(position == end and x0 == low and x1 == low and x2 == low and x3 == low)
