"""Ends processes: SIGTERM, a grace period, SIGKILL. Pure: it says what to send, to whom and when."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from sternpost_launcher.processes import Process

STUCK_SECONDS = 15.0
"""A process that outlives SIGKILL so long hangs in the kernel."""


class Ending:
    """One ending. All times are monotonic seconds."""

    def __init__(self, now: float, grace: float) -> None:
        self._kill_at = now + grace
        self._killed_at = 0.0
        self._told: set[tuple[int, int]] = set()
        self.grace = grace
        self.killed: dict[int, Process] = {}
        """By pid: the processes that did not end in time and were sent SIGKILL."""

    def hurry(self, now: float, grace: float) -> None:
        """Allow at most `grace` seconds from now on; a longer grace than what is left changes nothing."""
        if now + grace < self._kill_at:
            self._kill_at = now + grace
            self.grace = grace

    def kill_now(self, now: float) -> None:
        """Skip the rest of the grace period."""
        self._kill_at = min(self._kill_at, now)

    def step(self, targets: Sequence[Process], now: float) -> list[tuple[Process, signal.Signals]]:
        """The signals to send now to the processes that are left."""
        signals: list[tuple[Process, signal.Signals]] = []
        if now >= self._kill_at:
            self._killed_at = self._killed_at or now
            for process in targets:
                self.killed[process.pid] = process
                signals.append((process, signal.SIGKILL))
            return signals
        for process in targets:
            identity = (process.pid, process.start_time)
            if identity not in self._told:
                self._told.add(identity)
                signals.append((process, signal.SIGTERM))
                signals.append((process, signal.SIGCONT))  # a stopped process cannot end by itself
        return signals

    def stuck(self, now: float) -> bool:
        """Whether SIGKILL has been sent long ago."""
        return bool(self._killed_at) and now - self._killed_at >= STUCK_SECONDS
