"""Finding and ending processes by marks that they inherit, safe against the reuse of process ids."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sternpost_operator.cluster.local.paths import CONTAINER_VARIABLE, POD_VARIABLE

_PROC = Path("/proc")
_PR_SET_CHILD_SUBREAPER = 36
_MAX_ENVIRONMENT = 8 * 1024 * 1024


@dataclass(frozen=True)
class ProcessIdentity:
    """A process for good: the id alone is used again one day."""

    pid: int
    start_time: int
    """Clock ticks between boot and its start."""


@dataclass(frozen=True)
class ProcessRecord:
    """One row of the process table."""

    identity: ProcessIdentity
    parent: int
    group: int
    session: int
    zombie: bool


def read_process(pid: int) -> ProcessRecord | None:
    """The row of a process, or None if there is none."""
    try:
        content = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The command's name stands in parentheses and may itself contain anything, also parentheses.
    fields = content[content.rfind(b")") + 2 :].split()
    if len(fields) < 20:
        return None
    return ProcessRecord(
        identity=ProcessIdentity(pid, int(fields[19])),
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        zombie=fields[0] in (b"Z", b"X"),
    )


def identify(pid: int) -> ProcessIdentity | None:
    """The identity of a living process, or None: zombies do not live."""
    record = read_process(pid)
    return record.identity if record is not None and not record.zombie else None


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether exactly this process still runs."""
    return identify(identity.pid) == identity


def boot_id() -> str:
    """Name of this boot of the machine: process ids and start times mean nothing in another one."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def own_processes() -> Iterator[ProcessRecord]:
    """All living processes of this user."""
    user = os.getuid()
    with os.scandir(_PROC) as entries:
        for entry in entries:
            if not entry.name.isdigit():
                continue
            try:
                if entry.stat().st_uid != user:
                    continue
            except OSError:
                continue  # it ended meanwhile
            record = read_process(int(entry.name))
            if record is not None and not record.zombie:
                yield record


def environment_of(pid: int) -> frozenset[bytes]:
    """The environment a process was started with, as `NAME=value`; empty if it cannot be read."""
    try:
        with (_PROC / str(pid) / "environ").open("rb") as file:
            return frozenset(file.read(_MAX_ENVIRONMENT).split(b"\0"))
    except OSError:
        return frozenset()


def marked(name: str, value: str) -> Callable[[ProcessRecord], bool]:
    """A test for processes that inherited this environment variable."""
    entry = f"{name}={value}".encode()
    return lambda record: entry in environment_of(record.identity.pid)


def become_subreaper() -> None:
    """Make this process the parent of orphans among its descendants, which it then has to wait for."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def ancestors(pid: int) -> frozenset[int]:
    """The process and everything above it."""
    found: set[int] = set()
    while pid > 0 and pid not in found:
        found.add(pid)
        record = read_process(pid)
        if record is None:
            break
        pid = record.parent
    return frozenset(found)


def find(test: Callable[[ProcessRecord], bool]) -> list[ProcessIdentity]:
    """This user's processes that pass the test, and all that descend from them.

    Descendants count too because a program may overwrite its environment. The caller and its ancestors never do.
    """
    records = list(own_processes())
    spared = ancestors(os.getpid())
    children: dict[int, list[ProcessRecord]] = {}
    for record in records:
        children.setdefault(record.parent, []).append(record)
    found: dict[int, ProcessIdentity] = {}
    waiting = [record for record in records if record.identity.pid not in spared and test(record)]
    while waiting:
        record = waiting.pop()
        pid = record.identity.pid
        if pid in found or pid in spared:
            continue
        found[pid] = record.identity
        waiting.extend(children.get(pid, ()))
    return sorted(found.values(), key=lambda identity: identity.pid)


def send_signal(identity: ProcessIdentity, number: signal.Signals) -> bool:
    """Signal exactly this process; False if it is gone."""
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    try:
        # The descriptor holds on to one process; if that is the one meant, no other can get the signal.
        if not is_alive(identity):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def end_all(test: Callable[[ProcessRecord], bool], *, deadline_seconds: float = 10) -> int:
    """Kill what passes the test, again and again until nothing is left; the number of processes killed.

    Raises `TimeoutError`, naming the processes, if some are still there after `deadline_seconds`
    (they are then stuck in the kernel).
    """
    deadline = time.monotonic() + deadline_seconds
    killed: set[ProcessIdentity] = set()
    pause = 0.002
    while found := find(test):
        for identity in found:
            send_signal(identity, signal.SIGKILL)
        killed.update(found)
        if time.monotonic() > deadline:
            pids = ", ".join(str(identity.pid) for identity in found[:10])
            raise TimeoutError(f"processes {pids} do not end although they were killed")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
    return len(killed)


def container_processes(state_id: str, pod_uid: str, container: str) -> list[ProcessIdentity]:
    """All processes of one container."""
    return find(marked(CONTAINER_VARIABLE, container_mark(state_id, pod_uid, container)))


def end_pod_processes(state_id: str, pod_uid: str, *, deadline_seconds: float = 10) -> int:
    """Kill whatever is left of a Pod; as `end_all`."""
    return end_all(marked(POD_VARIABLE, pod_mark(state_id, pod_uid)), deadline_seconds=deadline_seconds)


def pod_mark(state_id: str, pod_uid: str) -> str:
    """Value of the variable that all processes of a Pod inherit."""
    return f"{state_id}/{pod_uid}"


def container_mark(state_id: str, pod_uid: str, container: str) -> str:
    """Value of the variable that all processes of a container inherit."""
    return f"{state_id}/{pod_uid}/{container}"


def in_any(tests: Iterable[Callable[[ProcessRecord], bool]]) -> Callable[[ProcessRecord], bool]:
    """A test that passes when one of the tests does."""
    all_tests = tuple(tests)
    return lambda record: any(test(record) for test in all_tests)
