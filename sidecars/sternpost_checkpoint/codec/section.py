"""A run of bytes inside of a piece, stored by whatever suits it: as it is, as one repeated byte, or as a zstd frame.

Noise is the rule among byte planes: of a float's four, three are mantissa. Trying to compress it costs most of the
time and gives nothing, so that a look at a sample comes first.
"""

from __future__ import annotations

import struct

import numpy as np
import zstandard

from sternpost_checkpoint.codec.base import PIECE_BYTES
from sternpost_checkpoint.codec.kernels.arrays import Array
from sternpost_checkpoint.errors import FormatError

LEVEL = 1
RAW, ZSTD, CONSTANT = 0, 1, 2

_HEADER = struct.Struct("<BI")
_SAMPLE = 16 * 1024
_WORTH = 0.98
"""A frame must be this much shorter."""


class SectionWriter:
    """Compresses sections, one after the other."""

    def __init__(self) -> None:
        self._zstd = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True, write_checksum=False)

    def write(self, data: Array) -> list[bytes | memoryview]:
        """Method, stored length and stored bytes of a contiguous uint8 array of at most PIECE_BYTES.

        To be joined before `data` changes: it is not copied where it does not compress.
        """
        if not len(data):
            return [_HEADER.pack(RAW, 0)]
        if data[0] == data[-1] and (data == data[0]).all():
            return [_HEADER.pack(CONSTANT, 1), bytes(data[:1])]
        if self._promises(data):
            frame = self._zstd.compress(data.data)
            if len(frame) < _WORTH * len(data):
                return [_HEADER.pack(ZSTD, len(frame)), frame]
        return [_HEADER.pack(RAW, len(data)), data.data]

    def _promises(self, data: Array) -> bool:
        if len(data) < 2 * _SAMPLE:
            return True
        # Four places: rows of a tensor differ, and one that was never trained says nothing about the others.
        step, part = len(data) // 4, _SAMPLE // 4
        sample = np.concatenate([data[start : start + part] for start in range(step // 2, len(data), step)])
        return len(self._zstd.compress(sample.data)) < _WORTH * len(sample)


class SectionReader:
    """Reads sections from hostile stored bytes."""

    def __init__(self, codec: str, stored: memoryview) -> None:
        self._codec = codec
        self._stored = stored
        self._zstd = zstandard.ZstdDecompressor(max_window_size=2 * PIECE_BYTES)
        self.position = 0

    def read_u32(self) -> int:
        """A number of the piece itself. Raises FormatError when the stored bytes end."""
        return int.from_bytes(self.take(4), "little")

    def read(self, size: int) -> Array:
        """The next section, which must have `size` bytes (the caller has bounded it). Raises FormatError."""
        method, length = _HEADER.unpack(self.take(_HEADER.size))
        if length > size and method != ZSTD:
            raise FormatError(f"{self._codec}: a section of {length} bytes stands where {size} must be")
        part = self.take(length)
        if method == RAW and length == size:
            data = np.empty(size, dtype=np.uint8)  # aligned, whatever is stored before it
            data[:] = part
        elif method == CONSTANT and length == 1:
            data = np.full(size, part[0], dtype=np.uint8)
        elif method == ZSTD and size:
            data = np.frombuffer(self._decompress(part, size), dtype=np.uint8)
        else:
            raise self.malformed(f"a section of method {method} with {length} bytes for {size} is malformed")
        data.flags.writeable = False  # one type for the kernels
        return data

    def malformed(self, why: str) -> FormatError:
        """The error to raise."""
        return FormatError(f"{self._codec}: {why}")

    def finish(self) -> None:
        """Raises FormatError unless everything has been read."""
        if self.position != len(self._stored):
            raise FormatError(f"{self._codec}: {len(self._stored) - self.position} bytes too many")

    def take(self, length: int) -> memoryview:
        """So many bytes as they are. Raises FormatError when the stored bytes end."""
        part = self._stored[self.position : self.position + length]
        if len(part) != length:
            raise FormatError(f"{self._codec}: the stored bytes end too early")
        self.position += length
        return part

    def _decompress(self, frame: memoryview, size: int) -> bytes:
        # The size a frame claims is what the library allocates: it must be the one expected before it is believed.
        try:
            claimed = zstandard.frame_content_size(frame)
            if claimed != size:
                raise FormatError(f"{self._codec}: a frame claims {claimed} bytes where {size} must be")
            data = self._zstd.decompress(frame, max_output_size=size)
        except zstandard.ZstdError as error:
            raise FormatError(f"{self._codec}: {error}") from error
        if len(data) != size:
            raise FormatError(f"{self._codec}: a frame holds {len(data)} bytes where {size} must be")
        return data
