"""A float32 master, given the 16-bit weight that is its rounding.

The weight says the master but for the distance between the two, which has 16 bits for bfloat16 and 13 for float16. A
distance of just half a unit upward (a tie that was rounded down) does not fit, nor does a weight that is not the
rounding at all: such elements stand in a list.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sternpost_checkpoint.codec.base import ALONE, Beside, Codec, NotEncodable
from sternpost_checkpoint.codec.exceptions import SHARE, read_exceptions, write_exceptions
from sternpost_checkpoint.codec.kernels import rounding
from sternpost_checkpoint.codec.kernels.arrays import Array, elements, finish, writable
from sternpost_checkpoint.codec.section import SectionReader, SectionWriter
from sternpost_checkpoint.codec.symbols import padded, read_symbols, write_symbols
from sternpost_checkpoint.errors import FormatError

PIECE_ELEMENTS = 2**18
SECTION, CODED = 0, 1
_SAMPLE = 4096
_WORTH_BITS = 7.8
"""Above it a byte of the distance is taken for noise."""


def widen(companion: Array, dtype: str, wide: Array) -> Array:
    """16-bit floats (uint16) as the patterns of the equal float32, in the beginning of `wide` (uint32)."""
    wide = wide[: len(companion)]
    (rounding.widen_bfloat16 if dtype == "bfloat16" else rounding.widen_float16)(companion, wide)
    return wide


def _looks_rounded(master: Array, weight: Array, dtype: str) -> bool:
    """Whether, by a sample of 1/16, so few elements are far from their companion that the list of them pays."""
    wide, far, seen = np.empty(4096, np.uint32), 0, 0
    for start in range(0, len(master), 16 * 4096):
        piece = slice(start, start + 4096)
        far += rounding.count_far(master[piece], widen(weight[piece], dtype, wide))
        seen += len(master[piece])
    return far <= SHARE * seen


class LowBitsCodec(Codec):
    """For each piece: a section for the low byte of the distances, the high byte (coded or a section), the exceptions."""

    name = "low-bits"
    needs_companion = True

    def encode(self, raw: memoryview, dtype: str, beside: Beside = ALONE) -> Iterator[bytes | memoryview]:
        """Yield piece after piece. Raises NotEncodable where the companion is not the rounding of float32 `raw`."""
        if dtype != "float32" or beside.companion_dtype not in ("bfloat16", "float16"):
            raise NotEncodable(f"low-bits: not for {dtype} with a companion of {beside.companion_dtype}")
        companion = beside.encodable_companion(raw.nbytes // 2, self.name)
        master, weight = elements(raw, 4), elements(companion, 2)
        if not _looks_rounded(master, weight, beside.companion_dtype):
            raise NotEncodable("low-bits: the companion is not the rounding of this tensor")
        return self._pieces(master, weight, beside.companion_dtype)

    def _pieces(self, master: Array, weight: Array, companion_dtype: str) -> Iterator[bytes | memoryview]:
        writer = SectionWriter()
        size = padded(min(len(master), PIECE_ELEMENTS))
        low, high, scratch = np.empty(size, np.uint8), np.empty(size, np.uint8), np.empty(size, np.uint32)
        for start in range(0, len(master), PIECE_ELEMENTS):
            piece = master[start : start + PIECE_ELEMENTS]
            wide = widen(weight[start : start + PIECE_ELEMENTS], companion_dtype, scratch)
            places = np.empty(0, np.uint32)
            if rounding.distances(piece, wide, low, high):
                places = np.empty(rounding.count_far(piece, wide), np.uint32)
                rounding.find_far(piece, wide, places)
            parts = writer.write(low[: len(piece)])
            if _bits(high[: len(piece)]) < _WORTH_BITS:
                high[len(piece) : padded(len(piece))] = high[len(piece) - 1]
                parts += [bytes([CODED]), *write_symbols(high[: padded(len(piece))], None, 1, 256)]
            else:
                parts += [bytes([SECTION]), *writer.write(high[: len(piece)])]
            yield b"".join((*parts, write_exceptions(places, piece[places])))

    def decode(self, stored: memoryview, raw: memoryview, dtype: str, beside: Beside = ALONE) -> None:
        """Fill `raw` piece by piece."""
        if dtype != "float32" or beside.companion_dtype not in ("bfloat16", "float16"):
            raise FormatError(f"low-bits: not for {dtype} with a companion of {beside.companion_dtype}")
        weight = elements(beside.required_companion(raw.nbytes // 2, self.name), 2)
        target, copied = writable(raw, 4)
        reader = SectionReader(self.name, stored)
        scratch = np.empty(min(len(target), PIECE_ELEMENTS), np.uint32)
        for start in range(0, len(target), PIECE_ELEMENTS):
            piece = target[start : start + PIECE_ELEMENTS]
            low = reader.read(len(piece))
            method = reader.take(1)[0]
            if method == CODED:
                high = read_symbols(reader, len(piece), None, 1, 256)
            elif method == SECTION:
                high = reader.read(len(piece))
            else:
                raise reader.malformed(f"method {method} is unknown")
            wide = widen(weight[start : start + PIECE_ELEMENTS], beside.companion_dtype, scratch)
            rounding.from_distances(low, high, wide, piece)
            read_exceptions(reader, piece)
        reader.finish()
        finish(raw, target, copied)


def _bits(data: Array) -> float:
    """Entropy of a sample in bits a byte."""
    counts = np.bincount(data[:: max(1, len(data) // _SAMPLE)], minlength=256)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())
