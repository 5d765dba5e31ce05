"""Differences with the base inside of a piece: symbols under the base's exponent, and the bits below them."""

from __future__ import annotations

import numpy as np

from sternpost_checkpoint.codec.kernels import difference
from sternpost_checkpoint.codec.kernels.arrays import Array
from sternpost_checkpoint.codec.section import SectionReader
from sternpost_checkpoint.codec.symbols import padded, read_symbols, write_symbols

EXPONENTS = {"bfloat16": (7, 255), "float16": (10, 31), "float32": (23, 255), "complex64": (23, 255)}
"""Shift and mask of the exponent; other dtypes are integers, without a context."""
WIDTHS = dict.fromkeys(("bfloat16", "float16", "int16", "uint16"), 2) | dict.fromkeys(
    ("float32", "complex64", "int32", "uint32"), 4
)
"""The dtypes that this is for, and the bytes of what is subtracted."""


class Differences:
    """Codes pieces of one dtype; the memory is for pieces of up to `most` elements."""

    def __init__(self, dtype: str, most: int) -> None:
        self._wide = WIDTHS[dtype] == 4
        self._floats = dtype in EXPONENTS
        self._shift, self._mask = EXPONENTS.get(dtype, (0, 0))
        self._kinds = difference.CONTEXTS if self._floats else 1
        self._alphabet = difference.alphabet(WIDTHS[dtype])
        self._contexts = np.empty(padded(most), np.uint8) if self._floats else None
        self._numbers = np.empty(most, np.uint32 if self._wide else np.uint16)
        self._scratch = np.empty(most, np.float32)
        self._symbols = np.empty(padded(most), np.uint8)
        self._loose = np.empty(most * WIDTHS[dtype] + difference.BITS_SLACK, np.uint8)

    def write(self, here: Array, there: Array) -> list[bytes | memoryview]:
        """The exponent of context 0, the coded symbols, the length of the loose bits and these."""
        count, wide = len(here), padded(len(here))
        if not count:
            return []
        numbers, symbols = self._numbers[:count], self._symbols[:wide]
        if self._wide:
            difference.numbers_32(here, there, self._floats, numbers)
            difference.symbols_32(numbers, self._scratch, symbols)
        else:
            difference.numbers_16(here, there, self._floats, numbers)
            difference.symbols_16(numbers, self._scratch, symbols)
        used = difference.write_loose(numbers, symbols, self._loose)
        symbols[count:] = symbols[count - 1]
        top = difference.highest_exponent(there, self._shift, self._mask) if self._floats else 0
        coded = write_symbols(symbols, self._contexts_of(there, top), self._kinds, self._alphabet)
        return [bytes([top]), *coded, used.to_bytes(4, "little"), self._loose[:used].data]

    def read(self, reader: SectionReader, there: Array, target: Array) -> None:
        """Undo `write`. Raises FormatError."""
        count = len(target)
        if not count:
            return
        contexts = self._contexts_of(there, reader.take(1)[0])
        symbols = read_symbols(reader, count, contexts, self._kinds, self._alphabet)
        used = reader.read_u32()
        if used > target.nbytes:
            raise reader.malformed(f"{used} bytes of loose bits are more than there can be")
        self._loose[:used] = reader.take(used)
        loose, numbers = self._loose[: used + difference.BITS_SLACK], self._numbers[:count]
        if difference.read_loose(symbols, loose, numbers) != used:
            raise reader.malformed("the loose bits do not end where the symbols do")
        (difference.apply_32 if self._wide else difference.apply_16)(numbers, there, self._floats, target)

    def _contexts_of(self, there: Array, top: int) -> Array | None:
        if self._contexts is None:
            return None
        difference.exponent_contexts(there, self._shift, self._mask, top, self._contexts)
        wide = padded(len(there))
        self._contexts[len(there) : wide] = self._contexts[len(there) - 1]
        return self._contexts[:wide]
