"""When a buffer is consolidated: by size, count, age or request."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sternpost_memory.limits import KIB
from sternpost_memory.store.base import Buffer


@dataclass(frozen=True, slots=True)
class Policy:
    """The first limit that is reached counts."""

    count: int = 64
    """Observations."""
    size: int = 64 * KIB
    """UTF-8 bytes of text."""
    age: float = 2.0
    """Seconds since the oldest observation arrived."""


@dataclass(frozen=True, slots=True)
class Due:
    """What to do now, and when to look again."""

    spaces: tuple[str, ...]
    wait: float | None
    """Seconds until the next buffer is due by its age; None if all are empty."""


def due(buffers: Iterable[Buffer], requested: Collection[str], policy: Policy, now: float) -> Due:
    """Which buffers to consolidate at `now` (Unix seconds), those that wait longest first."""
    spaces: list[str] = []
    wait: float | None = None
    for buffer in sorted(buffers, key=lambda item: item.oldest_at):
        # A clock that was set back must not keep a buffer waiting.
        age = abs(now - buffer.oldest_at)
        if buffer.space in requested or buffer.count >= policy.count or buffer.size >= policy.size or age >= policy.age:
            spaces.append(buffer.space)
        else:
            left = policy.age - age
            wait = left if wait is None else min(wait, left)
    return Due(spaces=tuple(spaces), wait=wait)
