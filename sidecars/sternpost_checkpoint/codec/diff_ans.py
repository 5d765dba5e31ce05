"""Differences with the base, entropy coded under the base's exponent: the best ratio for whatever changes slowly."""

from __future__ import annotations

from collections.abc import Iterator

from sternpost_checkpoint.codec.base import ALONE, Beside, Codec, NotEncodable
from sternpost_checkpoint.codec.differences import WIDTHS, Differences
from sternpost_checkpoint.codec.kernels.arrays import Array, elements, finish, writable
from sternpost_checkpoint.codec.section import SectionReader

PIECE_ELEMENTS = 2**18


class DiffAnsCodec(Codec):
    """Piece after piece of PIECE_ELEMENTS."""

    name = "diff-ans"
    needs_base = True

    def encode(self, raw: memoryview, dtype: str, beside: Beside = ALONE) -> Iterator[bytes | memoryview]:
        """Yield piece after piece. Raises NotEncodable without a base, and for elements that are not 16 or 32 bits."""
        if dtype not in WIDTHS:
            raise NotEncodable(f"diff-ans: not for {dtype}")
        base = beside.encodable_base(raw.nbytes, self.name)
        return self._pieces(elements(raw, WIDTHS[dtype]), elements(base, WIDTHS[dtype]), dtype)

    def _pieces(self, current: Array, base: Array, dtype: str) -> Iterator[bytes | memoryview]:
        differences = Differences(dtype, min(len(current), PIECE_ELEMENTS))
        for start in range(0, len(current), PIECE_ELEMENTS):
            piece = slice(start, start + PIECE_ELEMENTS)
            yield b"".join(differences.write(current[piece], base[piece]))

    def decode(self, stored: memoryview, raw: memoryview, dtype: str, beside: Beside = ALONE) -> None:
        """Fill `raw` piece by piece."""
        reader = SectionReader(self.name, stored)
        if dtype not in WIDTHS:
            raise reader.malformed(f"it does not take {dtype}")
        old = elements(beside.required_base(raw.nbytes, self.name), WIDTHS[dtype])
        target, copied = writable(raw, WIDTHS[dtype])
        differences = Differences(dtype, min(len(target), PIECE_ELEMENTS))
        for start in range(0, len(target), PIECE_ELEMENTS):
            piece = slice(start, start + PIECE_ELEMENTS)
            differences.read(reader, old[piece], target[piece])
        reader.finish()
        finish(raw, target, copied)
