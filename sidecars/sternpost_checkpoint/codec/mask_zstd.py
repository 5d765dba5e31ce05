"""The bit mask and the changed values, both by zstd; of the values the byte planes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sternpost_checkpoint.codec.base import ALONE, Beside, Codec
from sternpost_checkpoint.codec.kernels import mask as kernels
from sternpost_checkpoint.codec.kernels.arrays import UNSIGNED, Array, elements, finish, writable
from sternpost_checkpoint.codec.mask import PIECE_ELEMENTS, Comparison, read_mask, width_of
from sternpost_checkpoint.codec.section import SectionReader, SectionWriter
from sternpost_checkpoint.errors import FormatError


class MaskZstdCodec(Codec):
    """For each piece: how many elements changed, a section for the mask, one for each plane of the values."""

    name = "mask-zstd"
    needs_base = True

    def encode(self, raw: memoryview, dtype: str, beside: Beside = ALONE) -> Iterator[bytes | memoryview]:
        """Yield piece after piece. Raises NotEncodable without a base of the same size."""
        base = beside.encodable_base(raw.nbytes, self.name)
        width = width_of(dtype)
        return self._pieces(Comparison(width), elements(raw, width), elements(base, width))

    def _pieces(self, scratch: Comparison, current: Array, base: Array) -> Iterator[bytes | memoryview]:
        writer, width = SectionWriter(), current.itemsize
        for start in range(0, len(current), PIECE_ELEMENTS):
            piece = slice(start, start + PIECE_ELEMENTS)
            mask, values = scratch.compare(current[piece], base[piece])
            rows = values.view(np.uint8).reshape(-1, width)
            parts = [len(values).to_bytes(4, "little"), *writer.write(mask)]
            for plane in range(width):
                parts += writer.write(np.ascontiguousarray(rows[:, plane]))
            yield b"".join(parts)

    def decode(self, stored: memoryview, raw: memoryview, dtype: str, beside: Beside = ALONE) -> None:
        """Fill `raw` piece by piece."""
        width = width_of(dtype)
        old = elements(beside.required_base(raw.nbytes, self.name), width)
        target, copied = writable(raw, width)
        reader = SectionReader(self.name, stored)
        for start in range(0, len(target), PIECE_ELEMENTS):
            piece = target[start : start + PIECE_ELEMENTS]
            changed = reader.read_u32()
            if changed > len(piece):
                raise FormatError(f"mask-zstd: {changed} of {len(piece)} elements are said to have changed")
            mask = reader.read((len(piece) + 7) // 8)
            values = np.empty(changed + 1, dtype=UNSIGNED[width])
            rows = values[:changed].view(np.uint8).reshape(-1, width)
            for plane in range(width):
                rows[:, plane] = reader.read(changed)
            marks = read_mask(mask, len(piece), changed, self.name)
            kernels.apply_mask(piece, old[start : start + PIECE_ELEMENTS], marks, values)
        reader.finish()
        finish(raw, target, copied)
