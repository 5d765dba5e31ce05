"""Signals to the launcher, handed over one by one, and the wait that they interrupt."""

from __future__ import annotations

import os
import select
import signal
from collections import deque
from types import FrameType
from typing import Optional

ENDING = (signal.SIGTERM, signal.SIGINT)
FORWARDED = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


class Signals:
    """Installs handlers in the main thread; the handlers only note what came."""

    def __init__(self) -> None:
        self._pending: deque[signal.Signals] = deque()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in (*ENDING, *FORWARDED):
            signal.signal(number, self._note)
        signal.signal(signal.SIGCHLD, _nothing)  # a handler, so that a child's end interrupts the wait

    def _note(self, number: int, _frame: Optional[FrameType]) -> None:
        self._pending.append(signal.Signals(number))

    def take(self) -> Optional[signal.Signals]:
        """The next signal that came, or None."""
        return self._pending.popleft() if self._pending else None

    def wake(self) -> None:
        """End the current or next `wait`; for other threads."""
        try:
            os.write(self._writer, b"\0")
        except BlockingIOError:
            return  # the pipe is full: the wait ends anyway

    def wait(self, seconds: float) -> None:
        """Return after `seconds`, or at once after a signal or a `wake`."""
        if select.select([self._reader], [], [], seconds)[0]:
            while True:
                try:
                    if len(os.read(self._reader, 4096)) < 4096:
                        return
                except BlockingIOError:
                    return


def _nothing(_number: int, _frame: Optional[FrameType]) -> None:
    pass
