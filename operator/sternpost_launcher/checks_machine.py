"""Preflight checks of this machine: command, clock, memory, disk, shared memory."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Optional

from sternpost_launcher.verdict import MIB, Verdict, mib

MIN_MEMORY = 64 * MIB
MIN_DISK = 16 * MIB
MIN_DEV_SHM = 64 * MIB
MAX_CLOCK_LAG_SECONDS = 60.0
SHM_PROBE_BYTES = 64 * 1024

DEV_SHM = Path("/dev/shm")  # noqa: S108 - measured, never written to
CGROUP = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
MEMINFO = Path("/proc/meminfo")


def check_command(command: Sequence[str], environment: Mapping[str, str]) -> Verdict:
    """Whether the executable can be found."""
    name = command[0]
    found = shutil.which(name, path=environment.get("PATH", os.defpath))
    if found is not None:
        return Verdict("command", True, found)
    if "/" in name:
        path = Path(name)
        why = "is not executable (chmod +x, or name its interpreter)" if path.is_file() else "does not exist"
        return Verdict("command", False, f"{name} {why}: correct the trainer's command or the image")
    return Verdict("command", False, f"{name} is not in PATH: correct the trainer's command or install it in the image")


def check_clock(now: float, issued_at: float) -> Verdict:
    """Whether this clock is behind the one that issued the attempt; both in Unix seconds."""
    lag = issued_at - now
    if lag > MAX_CLOCK_LAG_SECONDS:
        return Verdict(
            "clock", False, f"the clock is {lag:.0f} s behind the operator's: set the node's time (NTP, chrony)"
        )
    return Verdict("clock", True, "not behind the operator's" if lag <= 0 else f"{lag:.1f} s behind the operator's")


def check_memory() -> Verdict:
    """Whether there is memory to start with, by the machine's and by the container's count."""
    counts = [
        (size, name) for size, name in ((_meminfo(), "machine"), (_cgroup_available(), "limit")) if size is not None
    ]
    if not counts:
        return Verdict("memory", True, "unknown: neither /proc/meminfo nor a memory cgroup can be read")
    size, name = min(counts)
    if size < MIN_MEMORY:
        way_out = (
            "raise the trainer's memory limit (shared memory counts)" if name == "limit" else "free memory on the node"
        )
        return Verdict("memory", False, f"{mib(size)} available, {mib(MIN_MEMORY)} needed: {way_out}")
    return Verdict("memory", True, f"{mib(size)} available")


def check_disk(folders: Sequence[Path]) -> Verdict:
    """Whether each of the folders has room; those that cannot be written to need none."""
    seen: dict[int, str] = {}
    for folder in folders:
        try:
            device = folder.stat().st_dev
            if device in seen or not os.access(folder, os.W_OK):
                continue
            usage = os.statvfs(folder)
        except OSError as error:
            return Verdict("disk", False, f"{folder}: {error.strerror}: create it, or mount it writable")
        free = usage.f_bavail * usage.f_frsize
        if free < MIN_DISK:
            return Verdict(
                "disk", False, f"{folder} has {mib(free)} free, {mib(MIN_DISK)} needed: free or add ephemeral storage"
            )
        if usage.f_files and not usage.f_favail:
            return Verdict("disk", False, f"{folder} has no free inodes: delete files or mount another volume")
        seen[device] = f"{folder} {mib(free)} free"
    return Verdict("disk", True, ", ".join(seen.values()) or "no writable folder")


def disk_folders(control_dir: Path, environment: Mapping[str, str]) -> list[Path]:
    """The folders that training is likely to write to, as far as they exist."""
    # Not tempfile.gettempdir(): it passes over a folder that is full.
    temporary = Path(environment.get("TMPDIR") or "/tmp")  # noqa: S108 - looked at, never written to
    folders = [control_dir, temporary]
    with suppress(FileNotFoundError):  # whoever started this may have removed it
        folders.append(Path.cwd())
    return [folder for folder in folders if folder.is_dir()]


def check_shared_memory(folder: Optional[Path]) -> Verdict:
    """Whether the checkpoint's shared memory can be written, and /dev/shm has the usual size."""
    details = []
    if folder is not None:
        try:
            _probe(folder)
            usage = os.statvfs(folder)
        except OSError as error:
            return Verdict(
                "shared-memory",
                False,
                f"{folder} cannot be written ({error.strerror}): mount it, or raise spec.checkpoint.sharedMemory",
            )
        total = usage.f_blocks * usage.f_frsize
        details.append(f"{mib(usage.f_bavail * usage.f_frsize)} free of {mib(total)}")
    try:
        usage = os.statvfs(DEV_SHM)
    except OSError:
        details.append("warning: no /dev/shm; data loaders and NCCL may need it")
    else:
        size = usage.f_blocks * usage.f_frsize
        if size < MIN_DEV_SHM:
            details.append(
                f"warning: /dev/shm has only {mib(size)}; mount an emptyDir with medium Memory there "
                "if data loaders or NCCL fail"
            )
    return Verdict("shared-memory", True, ", ".join(details) or f"{DEV_SHM} is there")


def _probe(folder: Path) -> None:
    descriptor, name = tempfile.mkstemp(prefix=".sternpost-preflight-", dir=folder)
    try:
        written = os.write(descriptor, b"\0" * SHM_PROBE_BYTES)
        if written < SHM_PROBE_BYTES:
            os.write(descriptor, b"\0" * (SHM_PROBE_BYTES - written))  # says why: ENOSPC
    finally:
        os.close(descriptor)
        Path(name).unlink()


def _meminfo() -> Optional[int]:
    try:
        lines = MEMINFO.read_text("ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None


def _cgroup_available() -> Optional[int]:
    """The smallest of limit minus usage over this process's memory cgroup and those above it; None without a limit."""
    try:
        lines = OWN_CGROUP.read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    found: list[int] = []
    for line in lines:
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0":
            mounts, files = [CGROUP, CGROUP / "unified"], ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            mounts = [CGROUP / "memory"]
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # In a container the path may be the host's and not exist here: then the mount itself is the container's.
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for mount in mounts:
            for depth in range(len(parts) + 1):
                available = _available(mount.joinpath(*parts[:depth]), files)
                if available is not None:
                    found.append(available)
    return min(found, default=None)


def _available(group: Path, files: tuple[str, str, str]) -> Optional[int]:
    limit_file, usage_file, cache_field = files
    try:
        limit = (group / limit_file).read_text("ascii").strip()
        if limit == "max" or int(limit) >= 2**60:
            return None
        usage = int((group / usage_file).read_text("ascii"))
        fields = dict(line.split(" ", 1) for line in (group / "memory.stat").read_text("ascii").splitlines())
        # Cached files are given back when memory is needed.
        return max(0, int(limit) - usage + int(fields.get(cache_field, "0")))
    except (OSError, ValueError):
        return None
