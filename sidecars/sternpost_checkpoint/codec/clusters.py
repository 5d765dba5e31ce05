"""Moments of an optimizer as clusters: each block of values has its own, on a logarithmic scale. Lossy.

Within a block, each 256 values have a scale, the exponent of the largest: rows of a tensor differ by much more than the
values of a row. What counts is the update m / (sqrt(v) + epsilon), in which an element whose m and v are both tiny is as
large as any other. So clusters are spaced by relative size, for m as for v, and what is not zero never becomes zero; a
linear scale is off by thousands there. `codec.moments` takes both together and checks the error.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from sternpost_checkpoint.codec.base import ALONE, Beside, Codec, NotEncodable
from sternpost_checkpoint.codec.kernels import clusters as kernels
from sternpost_checkpoint.codec.kernels.arrays import Array, elements, finish, writable
from sternpost_checkpoint.codec.section import SectionReader
from sternpost_checkpoint.codec.symbols import padded, read_symbols, write_symbols

BLOCK_ELEMENTS = 2**16
"""Elements that share clusters."""
DEFAULT_STEP = 2
"""Bins of 1/32 octave in a cluster: a relative error of about .0063 times this."""


class Clustering:
    """Codes one block after the other; the memory is for a block."""

    def __init__(self, codec: ClustersCodec) -> None:
        self._codec = codec
        self._masses, self._sums = np.zeros(kernels.BINS), np.zeros(kernels.BINS)
        self._codes = np.zeros(kernels.BINS, np.uint8)
        self._centres = np.zeros(256, np.uint16)
        self._scaled, self._symbols = np.empty(BLOCK_ELEMENTS, np.uint32), np.empty(BLOCK_ELEMENTS, np.uint8)

    def write(self, block: Array, step: int, decoded: Array, weights: Array | None = None) -> bytes:
        """Code float32 patterns (uint32), clusters at least `step` bins wide; also fills `decoded`.

        `weights` (float32): how much each value's relative error matters, squared. Raises
        NotEncodable for infinities and NaN.
        """
        count, wide = len(block), padded(len(block))
        scales, scaled = np.empty(_scales(count), np.uint8), self._scaled[:count]
        found_in_it = kernels.scale(block, scales, scaled)
        if found_in_it & 2:
            raise NotEncodable(f"{self._codec.name}: there are infinite values or NaN")
        self._masses[:], self._sums[:] = 0, 0
        kernels.histogram(scaled, weights, self._masses, self._sums)
        found = kernels.find_clusters(self._masses, self._sums, step, self._codec.most, self._codes, self._centres)
        symbols = self._symbols[:wide]
        kernels.encode(scaled, self._codes, symbols)
        symbols[count:] = symbols[count - 1]
        packed = np.zeros((count + 7) // 8 if found_in_it & 1 else 0, np.uint8)
        if len(packed):
            kernels.signs(block, packed)
        kernels.decode(symbols, self._centres, scales, packed, decoded)
        coded = write_symbols(symbols, None, 1, self._codec.most + 1)
        header = bytes([found_in_it & 1, found])
        return b"".join((header, self._centres[1 : found + 1].data.cast("B"), scales.data, *coded, packed.data))


def _scales(count: int) -> int:
    return (count + kernels.SCALE_ELEMENTS - 1) // kernels.SCALE_ELEMENTS


class ClustersCodec(Codec):
    """For each block: signs or none, number of clusters, their centres, scales, the coded clusters, the signs."""

    lossless = False
    most: ClassVar[int]
    """Clusters of a block, but for zero."""

    def encode(self, raw: memoryview, dtype: str, beside: Beside = ALONE) -> Iterator[bytes | memoryview]:  # noqa: ARG002 # the interface's
        """Yield block after block, the error unchecked. Raises NotEncodable for what is not finite float32."""
        if dtype != "float32":
            raise NotEncodable(f"{self.name}: not for {dtype}")
        values = elements(raw, 4)
        if not np.isfinite(values.view(np.float32)).all():
            raise NotEncodable(f"{self.name}: there are infinite values or NaN")
        return self._blocks(values)

    def _blocks(self, values: Array) -> Iterator[bytes | memoryview]:
        clustering, decoded = Clustering(self), np.empty(BLOCK_ELEMENTS, np.uint32)
        for start in range(0, len(values), BLOCK_ELEMENTS):
            block = values[start : start + BLOCK_ELEMENTS]
            yield clustering.write(block, DEFAULT_STEP, decoded[: len(block)])

    def decode(self, stored: memoryview, raw: memoryview, dtype: str, beside: Beside = ALONE) -> None:  # noqa: ARG002 # the interface's
        """Fill `raw` block by block."""
        reader = SectionReader(self.name, stored)
        if dtype != "float32":
            raise reader.malformed(f"it does not take {dtype}")
        target, copied = writable(raw, 4)
        for start in range(0, len(target), BLOCK_ELEMENTS):
            block = target[start : start + BLOCK_ELEMENTS]
            negative, found = reader.take(2)
            if negative > 1 or found > self.most:
                raise reader.malformed(f"a block of {found} clusters, or of kind {negative}, is none of this codec's")
            centres = np.zeros(256, np.uint16)
            centres[1 : found + 1] = np.frombuffer(bytes(reader.take(2 * found)), "<u2")
            scales = np.frombuffer(bytes(reader.take(_scales(len(block)))), np.uint8)
            symbols = read_symbols(reader, len(block), None, 1, self.most + 1)
            packed = np.frombuffer(bytes(reader.take((len(block) + 7) // 8 if negative else 0)), np.uint8)
            kernels.decode(symbols, centres, scales, packed, block)
        reader.finish()
        finish(raw, target, copied)


class Clusters8Codec(ClustersCodec):
    """Up to 255 clusters a block."""

    name = "clusters-8"
    most = 255


class Clusters4Codec(ClustersCodec):
    """Up to 15 clusters a block: a fifth of the bits that float32 takes, and an update that is a third off."""

    name = "clusters-4"
    most = 15
