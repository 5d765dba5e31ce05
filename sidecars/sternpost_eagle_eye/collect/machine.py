"""The machine and the ranks' processes, by psutil."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from sternpost_eagle_eye.vector import LauncherVector, MachineVector, ProcessVector

MAX_PROCESSES = 64
"""Of one rank, its data loaders included."""
_STOPPED = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)


class MachineCollector:
    """Processor, memory and network, as shares or counters."""

    def __init__(self, shm_dir: Path | None) -> None:
        self._shm_dir = shm_dir
        self._times: tuple[float, float] | None = None

    def collect(self) -> MachineVector:
        """Reads a few files of /proc; what this machine does not have stays unset."""
        memory = psutil.virtual_memory()
        network = psutil.net_io_counters()
        shared = self._shared_memory()
        return MachineVector(
            cpu_busy=self._cpu_busy(),
            load=os.getloadavg()[0],
            memory_total=memory.total,
            memory_available=memory.available,
            shared_memory_total=shared[0] if shared else None,
            shared_memory_free=shared[1] if shared else None,
            network_received=network.bytes_recv if network else None,
            network_sent=network.bytes_sent if network else None,
        )

    def _cpu_busy(self) -> float | None:
        times = psutil.cpu_times()
        total = float(sum(times[:8]))  # guest time is part of user time already
        idle = float(times.idle + getattr(times, "iowait", 0.0))
        before, self._times = self._times, (total, idle)
        if before is None or total <= before[0]:
            return None
        return min(1.0, max(0.0, 1 - (idle - before[1]) / (total - before[0])))

    def _shared_memory(self) -> tuple[int, int] | None:
        if self._shm_dir is None:
            return None
        try:
            status = os.statvfs(self._shm_dir)
        except OSError:
            return None
        return status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize


class ProcessCollector:
    """The state of each rank's process tree.

    The pids are the launcher's, whose container may number processes by itself: a process counts only if its environment says
    that it belongs to this Pod and attempt. Where that cannot be read nothing is said.
    """

    def __init__(self, pod_uid: str) -> None:
        self._pod_uid = pod_uid
        self._known: dict[tuple[int, str], psutil.Process | None] = {}

    def collect(self, launcher: LauncherVector | None) -> dict[int, ProcessVector]:
        """By rank."""
        if launcher is None or launcher.state not in ("running", "stopping"):
            self._known.clear()
            return {}
        found: dict[int, ProcessVector] = {}
        for rank in launcher.ranks:
            if rank.pid is None or rank.exit_code is not None:
                continue
            key = rank.pid, launcher.attempt
            # The environment is that of the launcher until the process has become the rank: ask again while it differs.
            process = self._known.get(key) or self._identify(rank.pid, launcher.attempt)
            self._known[key] = process
            if process is not None:
                found[rank.rank] = _tree(process)
        return found

    def _identify(self, pid: int, attempt: str) -> psutil.Process | None:
        try:
            process = psutil.Process(pid)
            environ = process.environ()
        except (psutil.Error, OSError):
            return None
        ours = environ.get("STERNPOST_POD_UID") == self._pod_uid and environ.get("STERNPOST_ATTEMPT") == attempt
        return process if ours else None


def _tree(process: psutil.Process) -> ProcessVector:
    cpu, stopped = 0.0, False
    pids, seen = [process.pid], 0
    try:
        if not process.is_running():
            return ProcessVector(alive=False)
        alive = process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return ProcessVector(alive=False)
    while pids and seen < MAX_PROCESSES:
        pid = pids.pop()
        seen += 1
        try:
            one = process if pid == process.pid else psutil.Process(pid)
            with one.oneshot():
                times = one.cpu_times()
                cpu += times.user + times.system
                stopped = stopped or one.status() in _STOPPED
        except (psutil.Error, OSError):
            continue  # it ended meanwhile
        pids += _children(pid)
    return ProcessVector(alive=alive, stopped=stopped, cpu_seconds=cpu)


def _children(pid: int) -> list[int]:
    # psutil would read the whole of /proc for this.
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (OSError, ValueError):
        return []
