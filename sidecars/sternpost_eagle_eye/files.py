"""Small files that other processes write: read with a bound, written in one step."""

from __future__ import annotations

import os
from pathlib import Path


class TooLargeError(OSError):
    """A file has more bytes than its format can need."""


def read_bounded(path: Path, limit: int) -> bytes:
    """The whole file. Raises FileNotFoundError, OSError, and TooLargeError for more than `limit` bytes."""
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise TooLargeError(f"{path} has more than {limit} bytes")
    return content


def write_whole(path: Path, content: bytes) -> None:
    """Replace the file so that a reader sees the old or the new content, never a part. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.chmod(0o644)  # read by a trainer that may be another user, whatever the umask
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


Signature = tuple[int, int, int]


def signature(path: Path) -> Signature | None:
    """Changes whenever the file is replaced or rewritten; None while there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
