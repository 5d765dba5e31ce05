"""Processes that the harness started: found again by pid and start time, or by the mark in their environment."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness.commands import wait_until

MARK = "STERNPOST_TEST_CLUSTER"
"""In the environment of all that a harness starts: the folder of its cluster. What has it is ours, also after a crash."""


@dataclass(frozen=True)
class Started:
    """A process, not to be taken for a later one with the same pid."""

    pid: int
    at: float
    """Its start, in Unix seconds as the kernel tells it."""

    @property
    def alive(self) -> bool:
        """Whether it still runs; one that ended and waits for its parent does not."""
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.at) < 0.05 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    @property
    def parent(self) -> Started | None:
        """The process that started it, when both still run."""
        try:
            parent = psutil.Process(self.pid).parent() if self.alive else None
            return None if parent is None else Started(parent.pid, parent.create_time())
        except psutil.NoSuchProcess:
            return None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when it has ended."""
        if self.alive:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone; the first process of a node goes after all that runs in it."""
        self.signal(signal.SIGKILL)
        wait_until(lambda: self.gone, f"process {self.pid} is gone after SIGKILL", seconds=120, interval=0.02)
        reap(self.pid)

    @property
    def gone(self) -> bool:
        """Whether none of its threads is left: as long as one is, its ports stay taken, though it counts as ended."""
        if self.alive:
            return False
        try:
            return len(list(Path(f"/proc/{self.pid}/task").iterdir())) <= 1
        except (FileNotFoundError, ProcessLookupError):
            return True


def started(pid: int) -> Started:
    """The process that has this pid now; raises `psutil.NoSuchProcess`."""
    return Started(pid, psutil.Process(pid).create_time())


def reap(pid: int) -> None:
    """Take the exit code of a child of ours, so that it does not stay as a zombie; others are not ours to reap."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def spawn(command: list[str | Path], *, log: Path, mark: Path, environment: dict[str, str] | None = None) -> Started:
    """Start a program in a session of its own that outlives us; its output is appended to `log`.

    Its environment is small: what the machine's user has set is none of a node's business.
    """
    words = [str(part) for part in command]
    log.parent.mkdir(parents=True, exist_ok=True)
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    pid = os.posix_spawnp(
        words[0],
        words,
        {"PATH": path, "HOME": "/root", "LANG": "C.UTF-8", MARK: str(mark), **(environment or {})},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            # What we inherited ourselves (a lock that somebody waits for) must not live as long as a node does.
            *((os.POSIX_SPAWN_CLOSE, number) for number in _inherited()),
        ],
        setsid=True,
    )
    return started(pid)


def _inherited() -> list[int]:
    """File descriptors beside the standard ones that a child would get from us."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        number = int(entry.name)
        try:
            if number > 2 and os.get_inheritable(number):
                found.append(number)
        except OSError:  # that of the listing itself, closed by now
            continue
    return found


def child_of(parent: Started, *, not_named: str, seconds: float = 10) -> Started:
    """The child into which `parent` (unshare, nsenter) forked, once it runs its own program.

    Raises `HarnessError` when there is none in time.
    """
    found: list[Started] = []

    def appeared() -> bool:
        try:
            for child in psutil.Process(parent.pid).children():
                if child.name() != not_named:
                    found.append(Started(child.pid, child.create_time()))
                    return True
        except psutil.NoSuchProcess:
            return not parent.alive
        return False

    wait_until(appeared, f"{not_named} {parent.pid} starts its program", seconds=seconds, interval=0.01)
    if not found:
        wait_until(lambda: False, f"{not_named} {parent.pid} starts its program: it ended", seconds=0)
    return found[0]


def marked(mark: Path) -> list[Started]:
    """All processes that were started for the cluster in this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(mark) and process.pid != os.getpid():
                found.append(Started(process.pid, process.create_time()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
