"""Entropy coding of symbols: range ANS with four interleaved states, and a frequency table for each context.

The symbols of a piece lie in four quarters, and each quarter has a state of its own: four independent chains keep the
processor busy. A state is 15 to 31 bits wide and gives or takes 16 bits at a time. Frequencies of a context add up to
4096. Encoding runs from the last symbol to the first, so that decoding runs forward.
"""

from __future__ import annotations

import numpy as np

from sternpost_checkpoint.codec.kernels.arrays import Array
from sternpost_checkpoint.codec.kernels.bits import high_product
from sternpost_checkpoint.codec.kernels.jit import helper, kernel

_U = np.uint64
SCALE_BITS = 12
SCALE = 1 << SCALE_BITS
LOWEST = 1 << 15
"""States are at least this, and below 2**31."""
WORDS_SLACK = 16
"""Words that an output must have beyond one for each symbol."""

_LOW_32 = np.uint64(0xFFFFFFFF)


@helper
def _quarters(values: Array) -> tuple[Array, Array, Array, Array]:
    quarter = values.size // 4
    return values[:quarter], values[quarter : 2 * quarter], values[2 * quarter : 3 * quarter], values[3 * quarter :]


@kernel
def places(symbols: Array, contexts: Array, alphabet: int, out: Array) -> None:
    """Fill uint16 `out` with the places in the frequency table: a row for each context. Both uint8, as long."""
    for i in range(symbols.size):
        out[i] = np.uint16(np.uint16(contexts[i]) * np.uint16(alphabet) + np.uint16(symbols[i]))


@kernel
def count(symbols: Array, counts: Array) -> None:
    """Count symbols, or `places`. `counts`: zeroed uint32 (4, places); four, lest equal neighbours wait for each other."""
    s0, s1, s2, s3 = _quarters(symbols)
    c0, c1, c2, c3 = counts[0], counts[1], counts[2], counts[3]
    for i in range(_U(symbols.size // 4)):
        c0[s0[i]] += np.uint32(1)
        c1[s1[i]] += np.uint32(1)
        c2[s2[i]] += np.uint32(1)
        c3[s3[i]] += np.uint32(1)


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
    """What encoding needs for each symbol of each context, in two words of the uint64 `table` (zeroed), row by row.

    The reciprocal of the frequency; and from the lowest bit: 32 bits the state from which on a word is given away, 16
    complement (4096 - frequency), 16 bias.
    """
    alphabet = frequencies.shape[1]
    for c in range(frequencies.shape[0]):
        start = 0
        for a in range(alphabet):
            frequency = int(frequencies[c, a])
            if frequency == 0:
                continue
            # x // frequency is the upper half of x * reciprocal, exactly, for x < 2**31; 1 has no such reciprocal.
            bias = start if frequency > 1 else start + 4095
            at = 2 * (c * alphabet + a)
            table[at] = ~_U(0) // _U(frequency) + _U(1) if frequency > 1 else ~_U(0)
            table[at + 1] = _U(frequency) << _U(19) | _U(4096 - frequency) << _U(32) | _U(bias) << _U(48)
            start += frequency


@helper
def _push(
    state: np.uint64, symbol: np.uint64, table: Array, words: Array, position: np.uint64
) -> tuple[np.uint64, np.uint64]:
    reciprocal, entry = table[_U(2) * symbol], table[_U(2) * symbol + _U(1)]
    words[position] = state
    full = _U(state >= (entry & _LOW_32))
    position -= full
    state >>= full << _U(4)
    return state + (entry >> _U(48)) + high_product(state, reciprocal) * ((entry >> _U(32)) & _U(0xFFFF)), position


@kernel
def encode(symbols: Array, table: Array, words: Array, states: Array) -> int:
    """Fill uint16 `words` from its end; returns how many are used. `states`: the four last ones, uint32.

    `symbols`: uint8, or uint16 `places`; a multiple of 4 long.
    """
    quarter = symbols.size // 4
    s0, s1, s2, s3 = _quarters(symbols)
    x0 = x1 = x2 = x3 = _U(1 << 15)
    position = _U(words.size - 1)
    for k in range(_U(quarter)):
        j = _U(quarter - 1) - k
        x3, position = _push(x3, _U(s3[j]), table, words, position)
        x2, position = _push(x2, _U(s2[j]), table, words, position)
        x1, position = _push(x1, _U(s1[j]), table, words, position)
        x0, position = _push(x0, _U(s0[j]), table, words, position)
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
