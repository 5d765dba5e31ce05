"""How long a rank waited for other ranks. Fed from several threads: backward hooks, communication callbacks, the script."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class WaitClock:
    """Adds up the time in which at least one wait is open; overlapping waits count once."""

    def __init__(self, on_change: Callable[[bool], None], clock: Callable[[], float] = time.perf_counter) -> None:
        """`on_change(waiting)` is called whenever the first wait opens and the last one ends."""
        self._on_change = on_change
        self._clock = clock
        self._lock = threading.Lock()
        self._open = 0
        self._since = 0.0
        self._total = 0.0

    def enter(self) -> None:
        """A wait opens."""
        with self._lock:
            self._open += 1
            if self._open == 1:
                self._since = self._clock()
                self._on_change(True)

    def leave(self) -> None:
        """A wait ends; one that was never opened is ignored."""
        with self._lock:
            if self._open == 0:
                return
            self._open -= 1
            if self._open == 0:
                self._total += self._clock() - self._since
                self._on_change(False)

    def total(self) -> float:
        """Seconds waited since the start, an open wait included."""
        with self._lock:
            return self._total + (self._clock() - self._since if self._open else 0.0)
