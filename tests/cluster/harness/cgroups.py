"""The cgroup (v1) of a node: the parent of all its Pods."""

from __future__ import annotations

import errno
from pathlib import Path

from harness.commands import HarnessError, wait_until

QUOTA, PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"


def hierarchies() -> dict[str, Path]:
    """Mount point of each cgroup v1 hierarchy by its options' last words (`cpu`, `memory`, `name=systemd`, …).

    Raises `HarnessError` where the machine has none (it has cgroup v2 only).
    """
    found = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options = line.split()[:4]
        if kind == "cgroup":
            for controller in options.split(","):
                if controller in {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"} or (
                    controller == "name=systemd"
                ):
                    found[controller] = Path(place)
    if "cpu" not in found:
        raise HarnessError(
            "this machine has no cgroup v1 hierarchies, which the harness's nodes are made of;"
            " set KUBECONFIG to a cluster made with `make kind`"
        )
    return found


def make(name: str) -> None:
    """Make the cgroup in every hierarchy."""
    for controller, place in hierarchies().items():
        group = place / name
        group.mkdir(exist_ok=True)
        if controller == "cpuset":
            for file in ("cpuset.cpus", "cpuset.mems"):
                (group / file).write_text((place / file).read_text())


def remove(name: str) -> None:
    """Remove the cgroup and all below it; waits for processes that are ending. Nothing happens when it is gone."""
    for place in set(hierarchies().values()):
        group = place / name
        wait_until(lambda group=group: _removed(group), f"{group} is empty", seconds=30)  # type: ignore[misc]


def _removed(group: Path) -> bool:
    if not group.exists():
        return True
    for folder in sorted((path for path in group.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts)):
        _rmdir(folder)
    return _rmdir(group)


def _rmdir(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
        return False
    return True


def limit_cpu(name: str, cores: float) -> dict[Path, int]:
    """Give all Pods of a node together no more than so many cores; returns what `unlimit_cpu` needs.

    In cgroup v1 a child may have no larger quota than its parent, so that those of the containers are lowered first.
    """
    top = hierarchies()["cpu"] / name
    before = {}
    for group in sorted((path.parent for path in top.rglob(QUOTA)), key=lambda path: -len(path.parts)):
        old = int((group / QUOTA).read_text())
        allowed = round(cores * int((group / PERIOD).read_text()))
        if old > allowed or group == top:
            before[group] = old
            (group / QUOTA).write_text(str(allowed))
    return before


def unlimit_cpu(before: dict[Path, int]) -> None:
    """Set the quotas as they were, for the containers that still run."""
    for group in sorted(before, key=lambda path: len(path.parts)):
        if group.exists():
            (group / QUOTA).write_text(str(before[group]))
