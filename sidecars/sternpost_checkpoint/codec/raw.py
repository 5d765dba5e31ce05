"""Bytes as they are."""

from __future__ import annotations

from collections.abc import Iterator

from sternpost_checkpoint.codec.base import ALONE, PIECE_BYTES, Beside, Codec
from sternpost_checkpoint.errors import FormatError


class RawCodec(Codec):
    """No compression."""

    name = "raw"

    def encode(self, raw: memoryview, dtype: str, beside: Beside = ALONE) -> Iterator[bytes | memoryview]:  # noqa: ARG002 # the interface's
        """Yield the bytes in pieces."""
        for start in range(0, len(raw), PIECE_BYTES):
            yield raw[start : start + PIECE_BYTES]

    def decode(self, stored: memoryview, raw: memoryview, dtype: str, beside: Beside = ALONE) -> None:  # noqa: ARG002 # the interface's
        """Copy."""
        if len(stored) != len(raw):
            raise FormatError(f"raw: {len(stored)} stored bytes for a tensor of {len(raw)}")
        raw[:] = stored
