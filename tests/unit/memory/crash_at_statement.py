"""Run by `test_memory_crash`: consolidates copies of a store, killed with SIGKILL at the 1st, 2nd, … SQL statement.

The copies are FOLDER/N.db, killed at their N-th statement; the last one is consolidated to its end.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

from sternpost_memory.consolidation.deterministic import DeterministicEngine
from sternpost_memory.consolidation.step import consolidate_next
from sternpost_memory.store.sqlite import SqliteStore


def consolidate(path: Path, killed_at: int) -> None:
    store = SqliteStore(path)
    left = killed_at

    def before_statement(_: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    store._connections._writer.set_trace_callback(before_statement)
    consolidate_next(store, DeterministicEngine(), "a", now=50.0)


def main(original: Path, folder: Path) -> None:
    killed_at = 0
    while True:
        killed_at += 1
        copy = folder / f"{killed_at}.db"
        shutil.copy(original, copy)
        child = os.fork()
        if child == 0:
            consolidate(copy, killed_at)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            sys.exit(os.WEXITSTATUS(status))


main(Path(sys.argv[1]), Path(sys.argv[2]))
