"""One time for a recording whose workers may have clocks of their own. Pure."""

from __future__ import annotations

from statistics import median

JUMP_SECONDS = 60.0
"""A clock that is further off than this was set; what is nearer is lateness or a pause."""


class RecordingClock:
    """Never goes back, and neither a clock that was set nor a gap in the recording moves it far.

    A sidecar judges by when a vector arrives, so that no worker's clock matters. Here the order of the lines stands for that,
    and a worker's times count as differences.
    """

    def __init__(self) -> None:
        self.now: float | None = None
        self.jumps = 0
        self._offsets: dict[int, float] = {}
        self._last: dict[tuple[int, str], float] = {}
        self._known: set[int] = set()

    def place(self, worker: int, t: float, what: str = "") -> float | str:
        """When a line counts that says it is of `t`; or why it does not count.

        `what` it holds: a trainer's page and exporters' pages of one time may be two lines.
        """
        if self.now is None:
            self.now = t
        offset = self._offsets.get(worker, 0.0)
        at = t + offset
        if abs(at - self.now) > JUMP_SECONDS:
            if at < self.now and worker not in self._known:
                return "time before the recording's present"
            self.jumps += 1
            self._offsets[worker] = self.now - t
            at = self.now
        elif at <= self._last.get((worker, what), at - 1.0):
            # Twice the same worker at one time, or lines out of order: the first one counts.
            return "duplicate" if at == self._last[worker, what] else "out of order"
        self._last[worker, what] = at
        self._known.add(worker)
        self.now = max(self.now, at)
        return self.now

    def told(self, at: float) -> float:
        """In the time that most workers' lines would say now."""
        return at - (median(self._offsets.get(worker, 0.0) for worker in self._known) if self._known else 0.0)

    def restarted(self) -> None:
        """Other Pods may report now."""
        self._last, self._known = {}, set()
