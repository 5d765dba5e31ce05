"""A `Schedule` that one can wait on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from sternpost_operator.operator_process.schedule import Schedule

K = TypeVar("K")


class WorkQueue(Generic[K]):
    """For one event loop."""

    def __init__(self, spacing: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._schedule: Schedule[K] = Schedule(spacing)
        self._clock = clock
        self._event = asyncio.Event()

    def wake(self, key: K) -> None:
        """Something happened to it."""
        self._schedule.wake(key, self._clock())
        self._event.set()

    async def take(self) -> tuple[K, float]:
        """Wait for a key that is due; also for how many seconds it was."""
        while True:
            now = self._clock()
            taken = self._schedule.take(now)
            if taken is not None:
                return taken
            due = self._schedule.next_due()
            self._event.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._event.wait(), None if due is None else max(0.0, due - now))

    def done(self, key: K, again_after: float | None) -> None:
        """The work on a key that was taken is done."""
        self._schedule.done(key, self._clock(), again_after)
        self._event.set()

    def depth(self) -> int:
        """How many keys are due and not taken."""
        return self._schedule.depth(self._clock())
