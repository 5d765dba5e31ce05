"""Small JSON files in shared memory: written whole or not at all."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 16 * 2**20


def write_json(path: Path, value: Any) -> None:
    """Replace `path` atomically. No fsync: the folder is memory."""
    temporary = path.with_name(f".tmp-{path.name}-{uuid.uuid4().hex}")
    try:
        temporary.write_text(json.dumps(value), encoding="utf-8")
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
