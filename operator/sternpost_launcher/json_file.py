"""Small JSON files in the control folder: bounded reads, atomic writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class UnusableFileError(ValueError):
    """A file that is too large or not the JSON it should be."""


def read_bounded(path: Path, limit: int) -> bytes:
    """The file's bytes. Raises `OSError`, and `UnusableFileError` above `limit` bytes."""
    with path.open("rb") as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise UnusableFileError(f"larger than {limit} bytes")
    return content


def parse_object(content: bytes) -> dict[str, Any]:
    """The JSON object in `content`; raises `UnusableFileError` for anything else."""
    try:
        value = json.loads(content.decode("utf-8"))
    except RecursionError:
        raise UnusableFileError("nested too deeply") from None
    except ValueError as error:
        raise UnusableFileError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise UnusableFileError(f"not a JSON object but a {type(value).__name__}")
    return value


def write_atomically(path: Path, value: dict[str, Any]) -> None:
    """Replace `path` by `value`: a reader sees the old file or the new one. Raises `OSError`.

    There is no fsync: the files are for processes of this Pod, which a machine's crash ends as well.
    """
    temporary = path.with_name(f".{path.name}.tmp")  # one writer only, so a killed one's remains are reused
    temporary.write_bytes(json.dumps(value).encode())
    temporary.chmod(0o644)  # read by a sidecar that may be another user, whatever the umask
    temporary.replace(path)
