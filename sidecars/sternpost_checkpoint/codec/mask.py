"""A bit mask of the elements that changed since the base, and their values.

Of 16-bit elements with a share p of changed ones 1 + 16 p bits are left. Values are stored, not differences: nothing
is lost, whatever the elements mean.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from sternpost_checkpoint.codec.base import ALONE, Beside, Codec
from sternpost_checkpoint.codec.kernels import mask as kernels
from sternpost_checkpoint.codec.kernels.arrays import UNSIGNED, Array, elements, finish, words, writable
from sternpost_checkpoint.errors import FormatError
from sternpost_checkpoint.format.dtypes import ITEM_BYTES

PIECE_ELEMENTS = 2**18
"""Elements that share a header; a multiple of 64."""

_HEADER = struct.Struct("<I")


def width_of(dtype: str) -> int:
    """Bytes of what is compared: an element, or half of one of 16 bytes."""
    return min(ITEM_BYTES[dtype], 8)


class Comparison:
    """Scratch memory for pieces of one tensor; what `compare` returns lasts until the next call."""

    def __init__(self, width: int) -> None:
        self._flags = np.empty(512, dtype=np.uint64)
        self._mask = words(PIECE_ELEMENTS)
        self._values = np.empty(PIECE_ELEMENTS + kernels.VALUES_SLACK, dtype=UNSIGNED[width])

    def compare(self, current: Array, base: Array) -> tuple[Array, Array]:
        """The mask as bytes (eight elements each, the first in the lowest bit) and the values of the changed elements.

        At most PIECE_ELEMENTS at a time.
        """
        mask = self._mask[: (len(current) + 63) // 64]
        changed = kernels.mask_and_values(current, base, self._flags, mask, self._values)
        return mask.view(np.uint8)[: (len(current) + 7) // 8], self._values[:changed]


def read_mask(mask: Array | memoryview, count: int, changed: int, codec: str) -> Array:
    """The mask of `count` elements as words. Raises FormatError unless it marks `changed` of them."""
    padded = words(count)
    padded.view(np.uint8)[: len(mask)] = mask
    if count % 64 and len(padded) and int(padded[-1]) >> (count % 64):
        raise FormatError(f"{codec}: the mask marks elements behind the last one")
    if kernels.count_bits(padded) != changed:
        raise FormatError(f"{codec}: the mask does not mark the {changed} elements that there are values for")
    return padded


class MaskCodec(Codec):
    """For each piece: how many elements changed, the mask, their values."""

    name = "mask"
    needs_base = True

    def encode(self, raw: memoryview, dtype: str, beside: Beside = ALONE) -> Iterator[bytes | memoryview]:
        """Yield piece after piece. Raises NotEncodable without a base of the same size."""
        base = beside.encodable_base(raw.nbytes, self.name)
        width = width_of(dtype)
        return self._pieces(Comparison(width), elements(raw, width), elements(base, width))

    def _pieces(self, scratch: Comparison, current: Array, base: Array) -> Iterator[bytes | memoryview]:
        for start in range(0, len(current), PIECE_ELEMENTS):
            piece = slice(start, start + PIECE_ELEMENTS)
            mask, values = scratch.compare(current[piece], base[piece])
            yield b"".join((_HEADER.pack(len(values)), mask.data, values.data))

    def decode(self, stored: memoryview, raw: memoryview, dtype: str, beside: Beside = ALONE) -> None:
        """Fill `raw` piece by piece."""
        width = width_of(dtype)
        old = elements(beside.required_base(raw.nbytes, self.name), width)
        target, copied = writable(raw, width)
        position = 0
        for start in range(0, len(target), PIECE_ELEMENTS):
            piece = target[start : start + PIECE_ELEMENTS]
            if position + _HEADER.size > len(stored):
                raise FormatError("mask: the stored bytes end too early")
            changed = _HEADER.unpack_from(stored, position)[0]
            mask_end = position + _HEADER.size + (len(piece) + 7) // 8
            end = mask_end + changed * width
            if changed > len(piece) or end > len(stored):
                raise FormatError(f"mask: {changed} values are announced, more than there can be")
            values = np.empty(changed + 1, dtype=UNSIGNED[width])
            values[:changed].view(np.uint8)[:] = stored[mask_end:end]
            mask = stored[position + _HEADER.size : mask_end]
            marks = read_mask(mask, len(piece), changed, self.name)
            kernels.apply_mask(piece, old[start : start + PIECE_ELEMENTS], marks, values)
            position = end
        if position != len(stored):
            raise FormatError(f"mask: {len(stored) - position} bytes too many")
        finish(raw, target, copied)
