"""The watch protocol of the Kubernetes API, as far as one object needs it. Pure: bytes and times go in."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 8.0


class WatchError(ValueError):
    """The stream cannot be gone on with: an error event, such as of a version that is gone, or garbage. List again."""


class EventKind(Enum):
    """What an event tells; others are passed over."""

    CHANGED = "changed"
    DELETED = "deleted"
    BOOKMARK = "bookmark"


_KINDS = {
    "ADDED": EventKind.CHANGED,
    "MODIFIED": EventKind.CHANGED,
    "DELETED": EventKind.DELETED,
    "BOOKMARK": EventKind.BOOKMARK,
}


@dataclass(frozen=True)
class Event:
    """One event: a version of the object, or how far the stream has come."""

    kind: EventKind
    version: str
    """Where to go on after it."""
    value: dict[str, Any]


@dataclass
class LineSplitter:
    """Lines out of a stream of bytes, each of at most `limit` bytes."""

    limit: int
    _rest: bytearray = field(default_factory=bytearray)

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that are complete now. Raises WatchError for one that is too long."""
        self._rest += chunk
        lines: list[bytes] = []
        if b"\n" in chunk:
            *complete, rest = self._rest.split(b"\n")
            lines = [bytes(line) for line in complete if line.strip()]
            self._rest = rest
        if len(self._rest) > self.limit or any(len(line) > self.limit for line in lines):
            raise WatchError(f"an event has more than {self.limit} bytes")
        return lines


def parse_event(line: bytes) -> Event | None:
    """None for a kind of event that is not known. Raises WatchError for garbage, and with the reason of an error event."""
    try:
        wire: Any = json.loads(line)
        kind, value = wire["type"], wire["object"]
        problem = (value.get("message") or value.get("reason") or "it does not say why") if kind == "ERROR" else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WatchError(f"an event is garbage: {type(error).__name__}: {str(error)[:200]}") from error
    if problem is not None:
        raise WatchError(f"the API server ends the watch: {str(problem)[:300]}")
    known = _KINDS.get(kind) if isinstance(kind, str) else None
    return Event(known, version_of(value), value) if known is not None else None


def version_of(value: Any) -> str:
    """`metadata.resourceVersion`. Raises WatchError when there is none."""
    metadata = value.get("metadata") if isinstance(value, dict) else None
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    if not isinstance(version, str) or not version:
        raise WatchError("metadata.resourceVersion is missing")
    return version


def without_managed_fields(value: dict[str, Any]) -> bytes:
    """The object as the launcher gets it: who set which field is half of it, and of no interest there.

    Raises WatchError for what has no metadata, or is nested beyond all reason.
    """
    version_of(value)
    metadata = {key: part for key, part in value["metadata"].items() if key != "managedFields"}
    try:
        return json.dumps({**value, "metadata": metadata}, separators=(",", ":")).encode()
    except RecursionError as error:
        raise WatchError("nested too deeply") from error


@dataclass
class BackOff:
    """Delays that double up to a bound, each shortened at random: many sidecars come back at different moments."""

    _next: float = FIRST_DELAY_SECONDS

    def succeeded(self) -> None:
        """The next delay is the first again."""
        self._next = FIRST_DELAY_SECONDS

    def delay(self, random: float) -> float:
        """Seconds to wait; `random` is from 0 to 1."""
        delay = self._next * (0.5 + 0.5 * random)
        self._next = min(LONGEST_DELAY_SECONDS, self._next * 2)
        return delay
