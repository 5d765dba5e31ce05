"""XOR with the base, byte planes, zstd level 1.

What did not change is zero, and what changed a little is zero in its upper planes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sternpost_checkpoint.codec.base import ALONE, PIECE_BYTES, Beside, Codec
from sternpost_checkpoint.codec.planes import read_planes, write_planes
from sternpost_checkpoint.codec.section import SectionReader, SectionWriter
from sternpost_checkpoint.format.dtypes import ITEM_BYTES


class XorCodec(Codec):
    """As zstd-planes, of the difference."""

    name = "xor-planes"
    needs_base = True

    def encode(self, raw: memoryview, dtype: str, beside: Beside = ALONE) -> Iterator[bytes | memoryview]:
        """Yield piece after piece. Raises NotEncodable without a base of the same size."""
        base = beside.encodable_base(raw.nbytes, self.name)
        return self._pieces(raw, base, ITEM_BYTES[dtype])

    def _pieces(self, raw: memoryview, base: memoryview, width: int) -> Iterator[bytes | memoryview]:
        writer = SectionWriter()
        for start in range(0, len(raw), PIECE_BYTES):
            piece = slice(start, start + PIECE_BYTES)
            changed = np.frombuffer(raw[piece], dtype=np.uint8) ^ np.frombuffer(base[piece], dtype=np.uint8)
            yield write_planes(changed.data, width, writer)

    def decode(self, stored: memoryview, raw: memoryview, dtype: str, beside: Beside = ALONE) -> None:
        """Fill `raw` piece by piece."""
        base = beside.required_base(raw.nbytes, self.name)
        reader = SectionReader(self.name, stored)
        for start in range(0, len(raw), PIECE_BYTES):
            target = raw[start : start + PIECE_BYTES]
            read_planes(reader, target, ITEM_BYTES[dtype], self.name)
            values = np.frombuffer(target, dtype=np.uint8)
            values ^= np.frombuffer(base[start : start + PIECE_BYTES], dtype=np.uint8)
        reader.finish()
