"""A process that slows a node's trainers: `python -m sternpost_operator.local_run.slow`.

They are stopped for most of each period, as on a machine whose processor is throttled. Processes that are started on
the node later are slowed too.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from sternpost_operator.cluster.local.paths import LocalPaths
from sternpost_operator.cluster.local.processes import ProcessIdentity, send_signal
from sternpost_operator.local_run.faults import rank_processes
from sternpost_operator.local_run.injection import FaultKind
from sternpost_operator.local_run.state import StateDirectory

PERIOD = 0.12
"""Seconds of one cycle of running and standing still."""
SEARCH = 0.5
"""Seconds between two looks at which processes there are."""


class DutyCycle:
    """Stops and continues processes so that they run for a share of the time."""

    def __init__(
        self,
        factor: float,
        find: Callable[[], list[ProcessIdentity]],
        *,
        hung: Callable[[], set[int]] = set,
        send: Callable[[ProcessIdentity, signal.Signals], bool] = send_signal,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Slow what `find` gives, the processes that are there now, `factor` times.

        `hung` gives the ids of those that shall stand still for good.
        """
        self._factor = factor
        self._hung = hung
        self._find = find
        self._send = send
        self._sleep = sleep
        self._clock = clock
        self._processes: list[ProcessIdentity] = []
        self._searched_at = float("-inf")

    def cycle(self) -> None:
        """One period. Whatever happens in it, nothing is left standing still."""
        now = self._clock()
        if now - self._searched_at >= SEARCH:
            self._processes = self._find()
            self._searched_at = now
        try:
            for process in self._processes:
                self._send(process, signal.SIGSTOP)
            self._sleep(PERIOD * (1 - 1 / self._factor))
        finally:
            hung = self._hung()
            for process in self._processes:
                if process.pid not in hung:
                    self._send(process, signal.SIGCONT)
        self._sleep(PERIOD / self._factor)


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
    duty = DutyCycle(factor, lambda: rank_processes(paths, node), hung=hung)
    while True:
        duty.cycle()


if __name__ == "__main__":
    app()
