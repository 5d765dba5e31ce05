"""A 16-bit weight, given its float32 master: nothing is left to store but the exceptions.

The other way round from low-bits: better where the master itself is stored as a small difference with its base.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sternpost_checkpoint.codec.base import ALONE, Beside, Codec, NotEncodable
from sternpost_checkpoint.codec.exceptions import SHARE, read_exceptions, write_exceptions
from sternpost_checkpoint.codec.kernels import rounding
from sternpost_checkpoint.codec.kernels.arrays import Array, elements, finish, writable
from sternpost_checkpoint.codec.section import SectionReader
from sternpost_checkpoint.errors import FormatError

PIECE_ELEMENTS = 2**18


def round_to(master: Array, dtype: str, scratch: Array, rounded: Array) -> None:
    """Fill `rounded` (uint16) with the nearest `dtype`, ties to even, of float32 patterns (uint32).

    `scratch`: float32, at least as long.
    """
    if dtype == "bfloat16":
        rounding.round_bfloat16(master, rounded)
    else:
        rounding.round_float16(master, scratch, rounded)


class RoundedCodec(Codec):
    """For each piece: the exceptions."""

    name = "rounded"
    needs_companion = True

    def encode(self, raw: memoryview, dtype: str, beside: Beside = ALONE) -> Iterator[bytes | memoryview]:
        """Yield piece after piece. Raises NotEncodable where `raw` is not the rounding of a float32 companion."""
        if dtype not in ("bfloat16", "float16") or beside.companion_dtype != "float32":
            raise NotEncodable(f"rounded: not for {dtype} with a companion of {beside.companion_dtype}")
        companion = beside.encodable_companion(2 * raw.nbytes, self.name)
        weight, master = elements(raw, 2), elements(companion, 4)
        most = min(len(weight), PIECE_ELEMENTS)
        buffer, scratch = np.empty(most, np.uint16), np.empty(most, np.float32)
        pieces = []
        listed = 0
        for start in range(0, len(weight), PIECE_ELEMENTS):
            piece = weight[start : start + PIECE_ELEMENTS]
            rounded = buffer[: len(piece)]
            round_to(master[start : start + PIECE_ELEMENTS], dtype, scratch, rounded)
            places = np.empty(rounding.count_different(piece, rounded), np.uint32)
            listed += len(places)
            if listed > SHARE * len(weight):
                raise NotEncodable("rounded: this tensor is not the rounding of its companion")
            if len(places):
                rounding.find_different(piece, rounded, places)
            pieces.append(write_exceptions(places, piece[places]))
        return iter(pieces)

    def decode(self, stored: memoryview, raw: memoryview, dtype: str, beside: Beside = ALONE) -> None:
        """Fill `raw` piece by piece."""
        if dtype not in ("bfloat16", "float16") or beside.companion_dtype != "float32":
            raise FormatError(f"rounded: not for {dtype} with a companion of {beside.companion_dtype}")
        master = elements(beside.required_companion(2 * raw.nbytes, self.name), 4)
        target, copied = writable(raw, 2)
        reader = SectionReader(self.name, stored)
        scratch = np.empty(min(len(target), PIECE_ELEMENTS), np.float32)
        for start in range(0, len(target), PIECE_ELEMENTS):
            piece = target[start : start + PIECE_ELEMENTS]
            round_to(master[start : start + PIECE_ELEMENTS], dtype, scratch, piece)
            read_exceptions(reader, piece)
        reader.finish()
        finish(raw, target, copied)
