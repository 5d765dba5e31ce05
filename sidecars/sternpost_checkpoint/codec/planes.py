"""Byte planes, each compressed by zstd level 1.

The first bytes of all elements, then the second ones, and so on: signs and exponents are alike, mantissas are noise,
and apart from each other they compress much better than interleaved.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import zstandard

from sternpost_checkpoint.codec.base import PIECE_BYTES, Codec
from sternpost_checkpoint.errors import FormatError
from sternpost_checkpoint.format.dtypes import ITEM_BYTES

LEVEL = 1

_LENGTH = struct.Struct("<I")


class PlanesCodec(Codec):
    """For each piece: its raw length, then for each plane the length of its zstd frame and the frame."""

    name = "zstd-planes"

    def encode(
        self,
        raw: memoryview,
        dtype: str,
        *,
        base: memoryview | None = None,  # noqa: ARG002
        companion: memoryview | None = None,  # noqa: ARG002
        companion_dtype: str | None = None,  # noqa: ARG002
    ) -> Iterator[bytes | memoryview]:
        """Yield one piece after the other."""
        item_bytes = ITEM_BYTES[dtype]
        compressor = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True, write_checksum=False)
        for start in range(0, len(raw), PIECE_BYTES):
            piece = np.frombuffer(raw[start : start + PIECE_BYTES], dtype=np.uint8).reshape(-1, item_bytes)
            parts = [_LENGTH.pack(piece.size)]
            for plane in range(item_bytes):
                frame = compressor.compress(np.ascontiguousarray(piece[:, plane]).data)
                parts += (_LENGTH.pack(len(frame)), frame)
            yield b"".join(parts)

    def decode(
        self,
        stored: memoryview,
        raw: memoryview,
        dtype: str,
        *,
        base: memoryview | None = None,  # noqa: ARG002
        companion: memoryview | None = None,  # noqa: ARG002
        companion_dtype: str | None = None,  # noqa: ARG002
    ) -> None:
        """Fill `raw` piece by piece."""
        item_bytes = ITEM_BYTES[dtype]
        decompressor = zstandard.ZstdDecompressor(max_window_size=2 * PIECE_BYTES)
        position = 0
        for start in range(0, len(raw), PIECE_BYTES):
            piece_bytes = min(PIECE_BYTES, len(raw) - start)
            length, position = _read_length(stored, position)
            if length != piece_bytes or piece_bytes % item_bytes:
                raise FormatError(f"zstd-planes: a piece claims {length} bytes where {piece_bytes} must be")
            target = np.frombuffer(raw[start : start + piece_bytes], dtype=np.uint8).reshape(-1, item_bytes)
            for plane in range(item_bytes):
                length, position = _read_length(stored, position)
                frame = stored[position : position + length]
                if len(frame) != length:
                    raise FormatError("zstd-planes: a frame ends behind the stored bytes")
                position += length
                target[:, plane] = np.frombuffer(_decompress(decompressor, frame, len(target)), dtype=np.uint8)
        if position != len(stored):
            raise FormatError(f"zstd-planes: {len(stored) - position} bytes too many")


def _read_length(stored: memoryview, position: int) -> tuple[int, int]:
    if position + _LENGTH.size > len(stored):
        raise FormatError("zstd-planes: the stored bytes end too early")
    return _LENGTH.unpack_from(stored, position)[0], position + _LENGTH.size


def _decompress(decompressor: zstandard.ZstdDecompressor, frame: memoryview, size: int) -> bytes:
    # The size a frame claims is what the library allocates: it must be the one expected before it is believed.
    try:
        claimed = zstandard.frame_content_size(frame)
        if claimed != size:
            raise FormatError(f"zstd-planes: a frame claims {claimed} bytes where {size} must be")
        plane = decompressor.decompress(frame, max_output_size=size)
    except zstandard.ZstdError as error:
        raise FormatError(f"zstd-planes: {error}") from error
    if len(plane) != size:
        raise FormatError(f"zstd-planes: a frame holds {len(plane)} bytes where {size} must be")
    return plane
