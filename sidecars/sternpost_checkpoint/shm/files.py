"""Small JSON files in shared memory: written whole or not at all.

Trainer and sidecar may run as different users, neither of them root, and each replaces, answers and removes what the other
made. So everything here is open to all, whatever the umask: only the containers that mount the volume get that far.
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 16 * 2**20


SHARED_FILE = 0o666
SHARED_DIRECTORY = 0o777


def make_directory(path: Path) -> None:
    """Make the folder and its parents. It appears with its mode set: the other side may be waiting for it. Raises OSError."""
    if path.is_dir():
        return
    make_directory(path.parent)
    new = path.with_name(f".tmp-{path.name}-{uuid.uuid4().hex}")
    new.mkdir()
    new.chmod(SHARED_DIRECTORY)
    try:
        new.rename(path)  # over an empty one, too
    except OSError:
        new.rmdir()
        if not path.is_dir():
            raise


def write_json(path: Path, value: Any) -> None:
    """Replace `path` atomically. No fsync: the folder is memory."""
    temporary = path.with_name(f".tmp-{path.name}-{uuid.uuid4().hex}")
    try:
        temporary.write_text(json.dumps(value), encoding="utf-8")
        temporary.chmod(SHARED_FILE)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def read_json(path: Path, limit: int = MAX_JSON_BYTES) -> dict[str, Any] | None:
    """Return the JSON object in `path`, or None when it is missing, larger than `limit` bytes or not an object."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > limit:
                return None
            value = json.loads(file.read(limit + 1))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
