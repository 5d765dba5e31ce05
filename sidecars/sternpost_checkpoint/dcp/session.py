"""What this process has restored from a storage, and under which token its run is registered."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from sternpost_checkpoint.lineage import Generation


@dataclass(frozen=True)
class Session:
    """From one restore (or the start) to the next: everything saved in between is one run."""

    token: str
    restored: Generation | None


_sessions: dict[str, Session] = {}


def session_of(uri: str) -> Session:
    """The current one of a storage."""
    return _sessions.setdefault(uri, Session(secrets.token_hex(16), None))


def restored(uri: str, generation: Generation) -> None:
    """Begin a new one: the training goes on from `generation`."""
    _sessions[uri] = Session(secrets.token_hex(16), generation)
