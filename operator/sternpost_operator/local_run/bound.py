"""Run a command that ends with its parent: `python -m sternpost_operator.local_run.bound PARENT COMMAND…`.

A supervisor that is killed must not leave an operator behind that takes the end of the nodes, which follows, for their
failure. Linux sends SIGTERM to the process when its parent is gone.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Become the command; the process id stays."""
    parent, *command = arguments
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    # It may have died before it was watched.
    if os.getppid() != int(parent):
        sys.exit(0)
    os.execv(command[0], command)  # noqa: S606 -- an argument list, no shell


if __name__ == "__main__":
    main(sys.argv[1:])
