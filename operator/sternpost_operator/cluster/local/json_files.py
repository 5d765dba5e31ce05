"""JSON objects as files: read with a limit, written to a temporary name and renamed."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

JsonObject = dict[str, Any]

MAX_BYTES = 4 * 1024 * 1024
"""Larger files are refused: the largest legitimate object is a Pod or a job, well below 1 MiB."""


class GarbageError(ValueError):
    """A file is there, and is not what it should be; the message names it."""


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes | None:
    """The file's content, or None if there is none; raises `GarbageError` beyond `limit` bytes, `OSError`."""
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if len(content) > limit:
        raise GarbageError(f"{path} is larger than {limit} bytes")
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def read_object(path: Path, limit: int = MAX_BYTES) -> JsonObject | None:
    """The JSON object in a file, or None if there is no file; raises `GarbageError`, `OSError`."""
    content = read_bytes(path, limit)
    if content is None:
        return None
    try:
        value = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise GarbageError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise GarbageError(f"{path} holds a JSON {type(value).__name__}, not an object")
    return value


def encode(value: JsonObject) -> bytes:
    """JSON in UTF-8, one line; raises `ValueError` for what JSON cannot hold."""
    # Surrogates are escaped, so that whatever was read can be written.
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def sync_folder(folder: Path) -> None:
    """Make renames in the folder survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes, *, mode: int = 0o600, durable: bool = False) -> None:
    """Put the whole content in place at once, or, on `OSError`, leave what was there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def write_object(path: Path, value: JsonObject, *, mode: int = 0o644, durable: bool = False) -> None:
    """Like `write_bytes`, of a JSON object."""
    write_bytes(path, encode(value), mode=mode, durable=durable)


def remove_folder(folder: Path) -> bool:
    """Take the folder away at once, then empty it; False if it was not there. Raises `OSError`."""
    grave = folder.with_name(f".removed-{folder.name}-{uuid.uuid4().hex[:8]}")
    try:
        folder.rename(grave)
    except FileNotFoundError:
        return False
    shutil.rmtree(grave, ignore_errors=True)
    return True
