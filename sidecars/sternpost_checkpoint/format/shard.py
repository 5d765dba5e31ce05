"""The first bytes of a shard."""

from __future__ import annotations

import struct

from sternpost_checkpoint.errors import FormatError
from sternpost_checkpoint.format.documents import SHARD_HEADER_BYTES
from sternpost_checkpoint.format.names import FORMAT

_HEADER = struct.Struct("<8sII")
_MAGIC = b"STERNSHD"

SHARD_HEADER = _HEADER.pack(_MAGIC, FORMAT, 0)


def check_shard_header(data: bytes | memoryview, where: str) -> None:
    """Raise FormatError, naming `where`, unless `data` are the first SHARD_HEADER_BYTES of a shard."""
    if len(data) != SHARD_HEADER_BYTES:
        raise FormatError(f"{where} ends within its first {SHARD_HEADER_BYTES} bytes")
    magic, version, zeros = _HEADER.unpack(data)
    if magic != _MAGIC or zeros != 0:
        raise FormatError(f"{where} does not begin as a shard does")
    if version != FORMAT:
        raise FormatError(f"{where} is of format {version}, and this release reads format {FORMAT} alone")
