"""What /proc tells: who descends from whom, and which process is really the one that is meant."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

MAX_ENVIRONMENT_BYTES = 4 * 1024 * 1024
PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """A process at one moment. `pid` and `start_time` together are never reused until the machine boots again."""

    pid: int
    start_time: int
    """Clock ticks since boot: field 22 of /proc/PID/stat."""
    parent: int
    group: int
    state: str

    @property
    def dead(self) -> bool:
        """A zombie: it runs no more and only waits for its parent to look."""
        return self.state in ("Z", "X", "x")


def parse_stat(content: bytes) -> Process:
    """A line of /proc/PID/stat; raises `ValueError` if it is none. The command may hold blanks and parentheses."""
    before, _, after = content.rpartition(b")")
    fields = after.split()
    if len(fields) < 20:
        raise ValueError("not a line of /proc/PID/stat")
    return Process(
        pid=int(before.split(b" ", 1)[0]),
        state=fields[0].decode("ascii", "replace"),
        parent=int(fields[1]),
        group=int(fields[2]),
        start_time=int(fields[19]),
    )


def read_process(pid: int) -> Optional[Process]:
    """The process that has this pid now, zombies included, or None."""
    try:
        return parse_stat((PROC / str(pid) / "stat").read_bytes())
    except (OSError, ValueError):
        return None  # gone, or not ours to see


def list_processes() -> list[Process]:
    """Every process in sight."""
    with os.scandir(PROC) as entries:
        pids = [int(entry.name) for entry in entries if entry.name.isdigit()]
    return [process for process in map(read_process, pids) if process is not None]


def boot_id() -> str:
    """Changes with each boot of the machine; empty if unknown."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def descendants(processes: Iterable[Process], roots: Collection[int]) -> list[Process]:
    """The descendants of the pids `roots`, and not the roots themselves."""
    children: dict[int, list[Process]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process)
    found: dict[int, Process] = {}
    pending = list(roots)
    while pending:
        for child in children.get(pending.pop(), []):
            if child.pid not in found:
                found[child.pid] = child
                pending.append(child.pid)
    for root in roots:
        found.pop(root, None)
    return list(found.values())


def ancestors(processes: Iterable[Process], pid: int) -> set[int]:
    """The pids of the ancestors of `pid`, and `pid`."""
    parents = {process.pid: process.parent for process in processes}
    found: set[int] = set()
    while pid not in found and pid in parents:
        found.add(pid)
        pid = parents[pid]
    return found


def has_environment(pid: int, present: str, equal: Mapping[str, Optional[str]]) -> bool:
    """Whether the process was started with variable `present`, and with each of `equal` so (None: without it)."""
    try:
        with (PROC / str(pid) / "environ").open("rb") as stream:
            content = stream.read(MAX_ENVIRONMENT_BYTES)
    except OSError:
        return False  # gone, or another user's
    found: dict[bytes, bytes] = {}
    for entry in content.split(b"\0"):
        name, _, value = entry.partition(b"=")
        found[name] = value
    if os.fsencode(present) not in found:
        return False
    return all(
        found.get(os.fsencode(name)) == (None if value is None else os.fsencode(value)) for name, value in equal.items()
    )


def send(process: Process, number: signal.Signals) -> bool:
    """Signal exactly this process; False if it is gone, its pid belongs to another one, or it is not ours to signal."""
    descriptor = None
    # Not on every kernel or sandbox: then the check below leaves a gap of microseconds.
    with suppress(OSError, AttributeError):
        descriptor = os.pidfd_open(process.pid)
    try:
        current = read_process(process.pid)
        if current is None or current.start_time != process.start_time:
            return False
        if descriptor is None:
            os.kill(process.pid, number)
        else:
            signal.pidfd_send_signal(descriptor, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return True


def become_subreaper() -> bool:
    """Have orphaned descendants reparented to this process rather than to PID 1; False where that cannot be had."""
    try:
        import ctypes  # noqa: PLC0415 - not in every Python build
    except ImportError:
        return False
    pr_set_child_subreaper = 36
    try:
        return bool(ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False
