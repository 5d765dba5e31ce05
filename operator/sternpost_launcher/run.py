"""Sets up the process, then turns the launcher's loop."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from sternpost_launcher.children import Children
from sternpost_launcher.family import Family
from sternpost_launcher.launcher import Launcher
from sternpost_launcher.log import Log
from sternpost_launcher.output import Sink
from sternpost_launcher.processes import become_subreaper, send
from sternpost_launcher.settings import Settings
from sternpost_launcher.signals import Signals

POLL_SECONDS = 0.15
ENDING_POLL_SECONDS = 0.05
FLUSH_SECONDS = 2.0


def run(settings: Settings, command: Sequence[str]) -> int:
    """Follow the Attempts until there is nothing left to do; returns the exit code."""
    _open_standard_streams()
    sink = Sink()
    log = Log(sink.put_without_waiting)
    signals = Signals()
    children = Children()
    adopts = become_subreaper() or os.getpid() == 1
    if not adopts:
        log.warning("orphaned descendants of ranks cannot be adopted; they are told by their environment")
    family = Family(settings, children, adopts=adopts)
    launcher = Launcher(
        settings=settings,
        command=command,
        children=children,
        family=family,
        sink=sink,
        signals=signals,
        log=log,
    )
    try:
        launcher.begin()
        while True:
            code = launcher.step()
            if code is not None:
                return code
            signals.wait(ENDING_POLL_SECONDS if launcher.ending else POLL_SECONDS)
    except BaseException:
        # A fault of the launcher's own: nothing may train on without it. It is shown by the interpreter.
        for process in family.find():
            send(process, signal.SIGKILL)
        raise
    finally:
        children.reap()
        log.info("launcher ends", pid=os.getpid())
        sink.flush(FLUSH_SECONDS)


def _open_standard_streams() -> None:
    """Fill in closed ones: a pipe that got their number would be mistaken for them."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
