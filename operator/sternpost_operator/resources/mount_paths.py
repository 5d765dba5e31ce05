"""Paths inside a container."""

from __future__ import annotations

from pathlib import PurePosixPath


def is_below(path: str, folder: str) -> bool:
    """Whether a path is the folder or in it, however it is spelled."""
    parts: list[str] = []
    for part in PurePosixPath("/" + path).parts[1:]:
        if part == "..":
            parts = parts[:-1]
        elif part != "/":
            parts.append(part)
    inside = PurePosixPath("/", *parts)
    return inside == PurePosixPath(folder) or PurePosixPath(folder) in inside.parents
