"""Entropy coded symbols inside of a piece, and the frequency tables before them."""

from __future__ import annotations

import struct

import numpy as np

from sternpost_checkpoint.codec.kernels import ans
from sternpost_checkpoint.codec.kernels.arrays import Array
from sternpost_checkpoint.codec.section import SectionReader

_HEADER = struct.Struct("<II4I")
"""Bytes of the table, number of words, the states."""


def padded(count: int) -> int:
    """The symbols that are coded for `count`: four quarters of one length. The rest repeats the last one."""
    return (count + 3) // 4 * 4


def write_symbols(symbols: Array, contexts: Array | None, kinds: int, alphabet: int) -> list[bytes | memoryview]:
    """Code uint8 `symbols` < `alphabet`, each with its context < `kinds`; both `padded` long."""
    if not len(symbols):
        return []
    counts = np.zeros((4, kinds, alphabet), dtype=np.uint32)
    ans.count(symbols, contexts, counts)
    frequencies = np.empty((kinds, alphabet), dtype=np.uint16)
    ans.normalize(counts, frequencies)
    written = np.empty(2 * frequencies.size, dtype=np.uint8)
    length = ans.write_frequencies(frequencies, written)
    table = np.zeros(frequencies.size, dtype=np.uint64)
    ans.encoder_table(frequencies, table)
    words, states = np.empty(len(symbols) + ans.WORDS_SLACK, dtype=np.uint16), np.empty(4, dtype=np.uint32)
    used = ans.encode(symbols, contexts, alphabet, table, words, states)
    header = _HEADER.pack(length, used, *states.tolist())
    return [header, written[:length].tobytes(), words[len(words) - used :].data.cast("B")]


def read_symbols(reader: SectionReader, count: int, contexts: Array | None, kinds: int, alphabet: int) -> Array:
    """Undo `write_symbols`: `padded(count)` symbols, all below `alphabet` whatever is stored. Raises FormatError."""
    symbols = np.empty(padded(count), dtype=np.uint8)
    if not count:
        return symbols
    length, used, *states = _HEADER.unpack(reader.take(_HEADER.size))
    if length > 2 * kinds * alphabet or used > len(symbols):
        raise reader.malformed(f"{length} bytes of frequencies and {used} words are more than there can be")
    if not all(ans.LOWEST <= state < 2**31 for state in states):
        raise reader.malformed("a state is out of range")
    frequencies = np.empty((kinds, alphabet), dtype=np.uint16)
    if ans.read_frequencies(np.frombuffer(bytes(reader.take(length)), np.uint8), frequencies) != length:
        raise reader.malformed("the frequencies are malformed")
    table = np.zeros(kinds * ans.SCALE, dtype=np.uint32)
    ans.decoder_table(frequencies, table)
    words = np.zeros(used + ans.WORDS_SLACK, dtype=np.uint16)
    words[:used].view(np.uint8)[:] = reader.take(2 * used)
    if not ans.decode(words, contexts, table, np.array(states, dtype=np.uint32), symbols):
        raise reader.malformed("the coded symbols do not end where they must")
    symbols.flags.writeable = False  # one type for the kernels
    return symbols
