"""Byte planes, each compressed by zstd level 1 where that pays.

The first bytes of all elements, then the second ones, and so on: signs and exponents are alike, mantissas are noise,
and apart from each other they compress much better than interleaved.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sternpost_checkpoint.codec.base import ALONE, PIECE_BYTES, Beside, Codec
from sternpost_checkpoint.codec.section import SectionReader, SectionWriter
from sternpost_checkpoint.errors import FormatError
from sternpost_checkpoint.format.dtypes import ITEM_BYTES


def write_planes(data: memoryview, width: int, writer: SectionWriter) -> bytes:
    """A piece: its raw length, then a section for each plane."""
    rows = np.frombuffer(data, dtype=np.uint8).reshape(-1, width)
    parts: list[bytes | memoryview] = [len(data).to_bytes(4, "little")]
    for plane in range(width):
        parts += writer.write(np.ascontiguousarray(rows[:, plane]))
    return b"".join(parts)


def read_planes(reader: SectionReader, target: memoryview, width: int, codec: str) -> None:
    """Undo `write_planes`; `target` has the piece's true size. Raises FormatError."""
    length = reader.read_u32()
    if length != len(target):
        raise FormatError(f"{codec}: a piece claims {length} bytes where {len(target)} must be")
    rows = np.frombuffer(target, dtype=np.uint8).reshape(-1, width)
    for plane in range(width):
        rows[:, plane] = reader.read(len(rows))


class PlanesCodec(Codec):
    """Piece after piece of PIECE_BYTES."""

    name = "zstd-planes"

    def encode(self, raw: memoryview, dtype: str, beside: Beside = ALONE) -> Iterator[bytes | memoryview]:  # noqa: ARG002 # the interface's
        """Yield one piece after the other."""
        writer = SectionWriter()
        for start in range(0, len(raw), PIECE_BYTES):
            yield write_planes(raw[start : start + PIECE_BYTES], ITEM_BYTES[dtype], writer)

    def decode(self, stored: memoryview, raw: memoryview, dtype: str, beside: Beside = ALONE) -> None:  # noqa: ARG002 # the interface's
        """Fill `raw` piece by piece."""
        reader = SectionReader(self.name, stored)
        for start in range(0, len(raw), PIECE_BYTES):
            read_planes(reader, raw[start : start + PIECE_BYTES], ITEM_BYTES[dtype], self.name)
        reader.finish()
