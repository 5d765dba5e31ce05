"""A budget of memory or processors: requests state their cost, wait in line, and give back what they took."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from sternpost_checkpoint.errors import CheckpointError


class CancelledError(CheckpointError):
    """Nobody wants the result any more."""


class Budget:
    """So much and no more at a time, whoever came first being served first. For several threads."""

    def __init__(self, total: int) -> None:
        self.total = max(total, 1)
        self._used = 0
        self._line: deque[object] = deque()
        self._changed = threading.Condition()

    @property
    def used(self) -> int:
        """What is taken now."""
        return self._used

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._line)

    def acquire(self, cost: int, cancelled: threading.Event | None = None) -> int:
        """Take `cost`, or the whole budget where it costs more; returns what was taken. Waits its turn.

        Raises CancelledError when `cancelled` is set; see `wake`.
        """
        taken = min(max(cost, 0), self.total)
        ticket = object()
        with self._changed:
            self._line.append(ticket)
            try:
                while self._line[0] is not ticket or self._used + taken > self.total:
                    if cancelled is not None and cancelled.is_set():
                        raise CancelledError("the save was given up")
                    self._changed.wait()
                self._used += taken
            finally:
                self._line.remove(ticket)
                self._changed.notify_all()
        return taken

    def try_acquire(self, cost: int) -> bool:
        """Take `cost` if it is there and nobody waits for it."""
        with self._changed:
            if self._line or self._used + cost > self.total:
                return False
            self._used += cost
            return True

    def release(self, cost: int) -> None:
        """Give back."""
        with self._changed:
            self._used -= cost
            self._changed.notify_all()

    def wake(self) -> None:
        """Let everyone in line look at their `cancelled`."""
        with self._changed:
            self._changed.notify_all()

    @contextmanager
    def holding(self, cost: int, cancelled: threading.Event | None = None) -> Iterator[None]:
        """Take, and give back at the end."""
        taken = self.acquire(cost, cancelled)
        try:
            yield
        finally:
            self.release(taken)
