"""Ctrl-C and its like: the first asks for an orderly end, the second for one at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Counts signals instead of ending the process, while it is open. For the main thread."""

    def __init__(self) -> None:
        self.first: signal.Signals | None = None
        self.count = 0
        self._before: dict[signal.Signals, object] = {}

    @property
    def hurry(self) -> bool:
        """Whether somebody asked twice."""
        return self.count > 1

    @property
    def exit_code(self) -> int:
        """As a shell reports the end by that signal."""
        return 128 + (self.first or 0)

    def __enter__(self) -> Self:
        """Begin to count."""
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Signals do again what they did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.count += 1
        self.first = self.first or signal.Signals(number)
