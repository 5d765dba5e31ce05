"""Connections to peers, kept for as long as one restore lasts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from sternpost_checkpoint.ring.client import PeerClient

REUSED_SECONDS = 5.0
"""Idle for longer, and a connection is opened anew: the server ends one that asks nothing."""

Opener = Callable[[int], AbstractContextManager[PeerClient]]


class Connections:
    """At most one idle connection a peer; a broken one is thrown away. Thread-safe."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        """Connects to the worker of an index. Raises RingError."""
        self._lock = threading.Lock()
        self._idle: dict[int, tuple[AbstractContextManager[PeerClient], PeerClient, float]] = {}

    @contextmanager
    def use(self, index: int) -> Iterator[PeerClient]:
        """A connection for this block alone. Raises RingError."""
        with self._lock:
            found = self._idle.pop(index, None)
        if found is not None and time.monotonic() - found[2] > REUSED_SECONDS:
            found[0].__exit__(None, None, None)
            found = None
        if found is None:
            context = self._opener(index)
            found = (context, context.__enter__(), 0.0)
        context, client, _ = found
        try:
            yield client
        except BaseException:  # a refusal, too: the server may have ended it
            context.__exit__(None, None, None)
            raise
        with self._lock:
            surplus = self._idle.pop(index, None)
            self._idle[index] = (context, client, time.monotonic())
        if surplus is not None:
            surplus[0].__exit__(None, None, None)

    def close(self) -> None:
        """End all."""
        with self._lock:
            idle, self._idle = list(self._idle.values()), {}
        for context, _, _ in idle:
            context.__exit__(None, None, None)
