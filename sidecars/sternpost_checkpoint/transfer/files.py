"""Files that are filled through memory and appear whole or not at all."""

from __future__ import annotations

import errno
import mmap
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sternpost_checkpoint.errors import CheckpointError


@contextmanager
def filled(path: Path, size: int) -> Iterator[memoryview]:
    """Give `size` writable bytes; when the block ends well they are, durably, the file `path`.

    Raises CheckpointError when there is no room or it cannot be written.
    """
    temporary = path.with_name(f".tmp-{path.name}-{uuid.uuid4().hex}")
    try:
        with temporary.open("xb+") as file:
            if size:
                os.posix_fallocate(file.fileno(), 0, size)
                memory = mmap.mmap(file.fileno(), size)  # unmapped with the last view of it
                yield memoryview(memory)
                memory.flush()
            else:
                yield memoryview(bytearray())
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        reason = "no space left" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
        raise CheckpointError(f"cannot write {path}: {reason}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: Path, data: bytes) -> None:
    """Write a small file, whole and durable. Raises CheckpointError."""
    with filled(path, len(data)) as target:
        target[:] = data


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_empty_folder(folder: Path) -> None:
    """Make `folder`, which must not have content. Raises CheckpointError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise CheckpointError(f"{folder} is not empty: give a folder that is empty or not there")
    except OSError as error:
        raise CheckpointError(f"cannot make {folder}: {error.strerror or error}") from error
