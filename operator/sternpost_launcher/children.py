"""Starts and reaps this process's children."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

MAX_HELPER_OUTPUT = 64 * 1024


@dataclass(frozen=True)
class Exit:
    """How a child ended."""

    code: int
    """-N after signal N."""
    at: float
    """Unix seconds at which it was noticed."""


class Children:
    """All children of the launcher, the ones it did not start included: as PID 1 or subreaper it inherits orphans.

    `posix_spawn` rather than `subprocess`: a fork with Python code before the exec can deadlock beside threads, and
    a single place must wait for every child. It cannot set a parent-death signal, so ranks can outlive a launcher
    that was killed; its successor finds them by what `started.json` and their environment say.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._exits: dict[int, Optional[Exit]] = {}
        self._helpers: set[int] = set()

    def spawn(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        stdout: int,
        stderr: int,
        *,
        helper: bool = False,
    ) -> int:
        """Start `command` with /dev/null as its input, in the caller's session; returns its pid. Raises `OSError`.

        A rank becomes the leader of its own process group; a helper stays in the caller's.
        """
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, stdout, 1),
            (os.POSIX_SPAWN_DUP2, stderr, 2),
        ]
        # Python ignores these two, and what is ignored stays so across an exec.
        defaults = [signal.SIGPIPE, signal.SIGXFSZ]
        with self._lock:  # so that `reap` cannot see the child before it is known
            words = list(command)
            if helper:
                pid = os.posix_spawnp(words[0], words, environment, file_actions=actions, setsigdef=defaults)
                self._helpers.add(pid)
            else:
                pid = os.posix_spawnp(
                    words[0], words, environment, file_actions=actions, setsigdef=defaults, setpgroup=0
                )
            self._exits[pid] = None
        return pid

    def reap(self) -> None:
        """Collect every child that has ended; never blocks."""
        with self._lock:
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    return
                if pid == 0:
                    return
                if pid in self._exits:
                    self._exits[pid] = Exit(os.waitstatus_to_exitcode(status), time.time())

    def take_exit(self, pid: int) -> Optional[Exit]:
        """How the child `pid` ended, once; None while it has not been reaped."""
        with self._lock:
            found = self._exits.get(pid)
            if found is not None:
                del self._exits[pid]
                self._helpers.discard(pid)
            return found

    def helpers(self) -> set[int]:
        """The pids of helpers that have not ended."""
        with self._lock:
            return set(self._helpers)

    def run_helper(
        self, command: Sequence[str], environment: Mapping[str, str], timeout: float
    ) -> tuple[Optional[int], str]:
        """Run a short command and return its exit code (None: it was killed after `timeout` seconds) and its output.

        For other threads than the one that reaps. Raises `OSError` if it cannot be started.
        """
        deadline = time.monotonic() + timeout
        reader, writer = os.pipe()
        try:
            try:
                pid = self.spawn(command, environment, writer, writer, helper=True)
            finally:
                os.close(writer)
            output = _read_until_closed(reader, deadline)
        finally:
            os.close(reader)
        killed = False
        while True:
            self.reap()
            ended = self.take_exit(pid)
            if ended is not None:
                return (None if killed else ended.code), output
            if not killed and time.monotonic() >= deadline:
                killed = True
                # Only `take_exit` above forgets the pid, so it cannot have been reused; a zombie ignores the signal.
                os.kill(pid, signal.SIGKILL)
                deadline += 5  # seconds in which the kernel should manage to end it
            elif killed and time.monotonic() >= deadline:
                return None, output
            time.sleep(0.005)


def _read_until_closed(descriptor: int, deadline: float) -> str:
    content = b""
    while len(content) < MAX_HELPER_OUTPUT:
        remaining = deadline - time.monotonic()
        if remaining <= 0 or not select.select([descriptor], [], [], remaining)[0]:
            break
        piece = os.read(descriptor, 4096)
        if not piece:
            break
        content += piece
    return content.decode("utf-8", "replace")
