"""Elements of a piece that its codec cannot express: their indexes and values, as they are."""

from __future__ import annotations

import numpy as np

from sternpost_checkpoint.codec.kernels.arrays import Array
from sternpost_checkpoint.codec.section import SectionReader

SHARE = 1 / 64
"""More of them than this, and another codec is better."""


def write_exceptions(places: Array, values: Array) -> bytes:
    """Number (u32), indexes in the piece (u32 each), values."""
    return b"".join((len(places).to_bytes(4, "little"), places.astype("<u4").tobytes(), values.tobytes()))


def read_exceptions(reader: SectionReader, target: Array) -> None:
    """Put them into `target`, the piece. Raises FormatError."""
    count = reader.read_u32()
    if count > len(target):
        raise reader.malformed(f"{count} exceptions are more than the {len(target)} elements of the piece")
    places = np.frombuffer(bytes(reader.take(4 * count)), dtype="<u4")
    values = np.frombuffer(bytes(reader.take(target.itemsize * count)), dtype=target.dtype)
    if count and int(places.max()) >= len(target):
        raise reader.malformed("an exception is behind the piece's last element")
    target[places] = values
