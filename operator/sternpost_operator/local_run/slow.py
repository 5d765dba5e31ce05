"""A process that slows a node's trainers: `python -m sternpost_operator.local_run.slow`.

They are stopped for most of each period, as on a machine whose processor is throttled. Processes that are started on
the node later are slowed too.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Annotated

import psutil
import typer

from sternpost_operator.cluster.local.paths import LocalPaths
from sternpost_operator.cluster.local.processes import ProcessIdentity, send_signal
from sternpost_operator.local_run.faults import rank_processes
from sternpost_operator.local_run.injection import FaultKind
from sternpost_operator.local_run.state import StateDirectory

PERIOD = 0.12
"""Seconds of one cycle of running and standing still."""
SEARCH = 0.5
"""Seconds between two looks at which processes there are, and at what they use."""
BASELINE = 1.5
"""Seconds of the look at what they use before they are slowed."""
LEAST = 0.4
"""The share of time that they run is at least this part of one over the factor, whatever they use."""


class DutyCycle:
    """Stops and continues processes so that they get a share of the processor time that they had before.

    Where processors are scarce, a process that was stopped is preferred when it goes on, and so gets more than its share
    of the time: how long it may run is set by what it uses.
    """

    def __init__(
        self,
        factor: float,
        find: Callable[[], list[ProcessIdentity]],
        *,
        hung: Callable[[], set[int]] = set,
        used: Callable[[Iterable[ProcessIdentity]], dict[ProcessIdentity, float]] = lambda _: {},
        send: Callable[[ProcessIdentity, signal.Signals], bool] = send_signal,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Slow what `find` gives, the processes that are there now, `factor` times.

        `hung` gives the ids of those that shall stand still for good, `used` the processor seconds of each.
        """
        self._factor = factor
        self._find = find
        self._hung = hung
        self._used = used
        self._send = send
        self._sleep = sleep
        self._clock = clock
        self._share = 1 / factor
        self._target: float | None = None
        self._processes: list[ProcessIdentity] = []
        self._searched_at = float("-inf")
        self._before: dict[ProcessIdentity, float] = {}

    def measure(self) -> None:
        """See what they use while they are not slowed."""
        processes = self._find()
        before, began = self._used(processes), self._clock()
        self._sleep(BASELINE)
        rate = _rate(before, self._used(processes), self._clock() - began)
        self._target = rate / self._factor if rate else None

    def cycle(self) -> None:
        """One period. Whatever happens in it, nothing is left standing still that was not before."""
        self._look(self._clock())
        try:
            for process in self._processes:
                self._send(process, signal.SIGSTOP)
            self._sleep(PERIOD * (1 - self._share))
        finally:
            hung = self._hung()
            for process in self._processes:
                if process.pid not in hung:
                    self._send(process, signal.SIGCONT)
        self._sleep(PERIOD * self._share)

    def _look(self, now: float) -> None:
        seconds = now - self._searched_at
        if seconds < SEARCH:
            return
        self._processes = self._find()
        used = self._used(self._processes)
        rate = _rate(self._before, used, seconds)
        if self._target is not None and rate:
            # Half of the way, for one look is a small sample.
            wanted = self._share * (1 + self._target / rate) / 2
            self._share = min(1 / self._factor, max(LEAST / self._factor, wanted))
        self._before = used
        self._searched_at = now


def _rate(before: dict[ProcessIdentity, float], after: dict[ProcessIdentity, float], seconds: float) -> float | None:
    """Processors in use by those that were there all the time; None if there were none."""
    both = before.keys() & after.keys()
    return sum(after[each] - before[each] for each in both) / seconds if both and seconds > 0 else None


def processor_seconds(processes: Iterable[ProcessIdentity]) -> dict[ProcessIdentity, float]:
    """What each that still runs has used since its start."""
    used = {}
    for each in processes:
        try:
            times = psutil.Process(each.pid).cpu_times()
        except psutil.NoSuchProcess:
            continue
        used[each] = times.user + times.system
    return used


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    state_dir: Annotated[Path, typer.Option(help="State directory of the run.")],
    node: Annotated[str, typer.Option(help="Name of the node.")],
    factor: Annotated[float, typer.Option(min=1, max=100, help="How many times slower.")],
) -> None:
    """Slow the trainers of a node until the process is ended."""
    paths = LocalPaths(state_dir)
    state = StateDirectory(state_dir)

    def hung() -> set[int]:
        return {pid for each in state.read_journal() if each.kind == FaultKind.HANG.value for pid in each.pids}

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 -- the signature of a signal handler
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    duty = DutyCycle(factor, lambda: rank_processes(paths, node), hung=hung, used=processor_seconds)
    duty.measure()
    while True:
        duty.cycle()


if __name__ == "__main__":
    app()
