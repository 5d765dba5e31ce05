"""Floats without a base: exponents entropy coded, signs and mantissas as they are.

A Huffman code, as in zstd or zipnn, spends a whole number of bits on each exponent; this spends fractions.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sternpost_checkpoint.codec.base import ALONE, Beside, Codec, NotEncodable
from sternpost_checkpoint.codec.kernels import floats
from sternpost_checkpoint.codec.kernels.arrays import Array, elements, finish, writable
from sternpost_checkpoint.codec.section import SectionReader, SectionWriter
from sternpost_checkpoint.codec.symbols import padded, read_symbols, write_symbols

PIECE_ELEMENTS = 2**18
WIDTHS = {
    "bool": 1,
    "uint8": 1,
    "int8": 1,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "bfloat16": 2,
    "float16": 2,
    "float32": 4,
    "complex64": 4,
}
"""Bytes of what is taken apart; of one byte all bits are coded."""


class FloatAnsCodec(Codec):
    """For each piece: the coded exponents, then sections for the other bits."""

    name = "float-ans"

    def encode(self, raw: memoryview, dtype: str, beside: Beside = ALONE) -> Iterator[bytes | memoryview]:  # noqa: ARG002 # the interface's
        """Yield piece after piece. Raises NotEncodable for other dtypes than floats of up to 32 bits, and bytes."""
        if dtype not in WIDTHS:
            raise NotEncodable(f"float-ans: not for {dtype}")
        return self._pieces(elements(raw, WIDTHS[dtype]))

    def _pieces(self, values: Array) -> Iterator[bytes | memoryview]:
        writer = SectionWriter()
        # Reused: what is yielded is a copy.
        size = min(padded(len(values)), PIECE_ELEMENTS)
        exponents, rest = np.empty(size, np.uint8), np.empty(size, np.uint8)
        low = np.empty(size if values.itemsize == 4 else 0, np.uint16)
        for start in range(0, len(values), PIECE_ELEMENTS):
            piece = values[start : start + PIECE_ELEMENTS]
            count, wide = len(piece), padded(len(piece))
            sections: list[bytes | memoryview] = []
            if values.itemsize == 1:
                exponents[:count] = piece
            elif values.itemsize == 2:
                floats.split_16(piece, exponents, rest)
                sections = writer.write(rest[:count])
            else:
                floats.split_32(piece, exponents, rest, low)
                sections = writer.write(rest[:count]) + writer.write(low[:count].view(np.uint8))
            exponents[count:wide] = exponents[count - 1]
            yield b"".join(write_symbols(exponents[:wide], None, 1, 256) + sections)

    def decode(self, stored: memoryview, raw: memoryview, dtype: str, beside: Beside = ALONE) -> None:  # noqa: ARG002 # the interface's
        """Fill `raw` piece by piece."""
        width = WIDTHS.get(dtype)
        reader = SectionReader(self.name, stored)
        if width is None:
            raise reader.malformed(f"it does not take {dtype}")
        target, copied = writable(raw, width)
        for start in range(0, len(target), PIECE_ELEMENTS):
            piece = target[start : start + PIECE_ELEMENTS]
            exponents = read_symbols(reader, len(piece), None, 1, 256)
            if width == 1:
                piece[:] = exponents[: len(piece)]
            elif width == 2:
                floats.join_16(exponents, reader.read(len(piece)), piece)
            else:
                rest, low = reader.read(len(piece)), reader.read(2 * len(piece))
                floats.join_32(exponents, rest, low.view(np.uint16), piece)
        reader.finish()
        finish(raw, target, copied)
