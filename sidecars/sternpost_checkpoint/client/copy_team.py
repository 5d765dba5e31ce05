"""Copying memory with several threads, none of which holds the GIL while it copies."""

from __future__ import annotations

import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from queue import SimpleQueue

CHUNK_BYTES = 4 * 2**20
"""Large enough that the way to the next one does not show, small enough that the threads end together."""
WORTH_BYTES = 1 * 2**20
"""Below it, waking another thread takes longer than copying."""

Job = tuple[int, int, int]
"""Target address, source address, bytes."""


def chunks(jobs: Iterable[Job]) -> list[Job]:
    """Cut jobs into pieces of at most CHUNK_BYTES."""
    return [
        (target + start, source + start, min(CHUNK_BYTES, size - start))
        for target, source, size in jobs
        for start in range(0, size, CHUNK_BYTES)
    ]


def usable_threads(wanted: int) -> int:
    """No more than the process may run on at once."""
    return max(1, min(wanted, len(os.sched_getaffinity(0))))


class CopyTeam:
    """The calling thread and `threads - 1` helpers, which sleep between saves."""

    def __init__(self, threads: int) -> None:
        self._helpers = threads - 1
        self._threads: list[threading.Thread] = []
        self._inbox: SimpleQueue[deque[Job] | None] = SimpleQueue()
        self._done: SimpleQueue[None] = SimpleQueue()

    def run(self, jobs: list[Job], meanwhile: Callable[[], None]) -> None:
        """Copy `jobs`, which come from `chunks`; `meanwhile` is called on this thread first. All is copied on return.

        The caller vouches for the addresses. When `meanwhile` raises, the helpers have ended before the error leaves.
        """
        pending = deque(jobs)
        helpers = self._helpers if sum(job[2] for job in jobs) >= WORTH_BYTES else 0
        if helpers:
            self._start()
        for _ in range(helpers):
            self._inbox.put(pending)
        try:
            meanwhile()
            _drain(pending)
        finally:
            pending.clear()
            for _ in range(helpers):
                self._done.get()

    def warm(self) -> None:
        """Start the helpers."""
        if self._helpers:
            self._start()

    def _start(self) -> None:
        # A forked child has the objects, but not the threads.
        if not all(thread.is_alive() for thread in self._threads) or not self._threads:
            self._inbox, self._done = SimpleQueue(), SimpleQueue()
            self._threads = [
                threading.Thread(target=_help, args=(self._inbox, self._done), name="sternpost-copy", daemon=True)
                for _ in range(self._helpers)
            ]
            for thread in self._threads:
                thread.start()

    def __del__(self) -> None:
        for _ in self._threads:
            self._inbox.put(None)


def _help(inbox: SimpleQueue[deque[Job] | None], done: SimpleQueue[None]) -> None:
    while (pending := inbox.get()) is not None:
        _drain(pending)
        done.put(None)


def _drain(pending: deque[Job]) -> None:
    copy = ctypes.memmove  # releases the GIL
    while True:
        try:
            job = pending.popleft()
        except IndexError:
            return
        copy(*job)
