"""The verdict of one preflight check."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True)
class Verdict:
    """`detail` says what was found and, if it is not `ok`, the way out."""

    check: str
    ok: bool
    detail: str


def mib(size: float) -> str:
    """A number of bytes, for people."""
    return f"{size / MIB:.0f} MiB"
