"""Where things are on this machine, and the marks by which its processes are found again."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path

STATE_VARIABLE = "STERNPOST_LOCAL_STATE"
NODE_VARIABLE = "STERNPOST_LOCAL_NODE"
POD_VARIABLE = "STERNPOST_LOCAL_POD"
CONTAINER_VARIABLE = "STERNPOST_LOCAL_CONTAINER"

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
# Real folders are written into commands, JSON in environment variables, and URIs: what would break those is refused.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\"'\\$%#?]")


def check_name(name: object) -> str:
    """Return the name if it may be part of a path; raises `ValueError` otherwise."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name:
        raise ValueError(f"{str(name)[:80]!r} is not a name: lower case letters, digits, '-' and '.', at most 253")
    return name


def _checked_folder(folder: Path, what: str) -> Path:
    absolute = Path(os.path.abspath(folder))  # noqa: PTH100 - resolve() would follow links, which may not exist yet
    unsafe = _UNSAFE.search(str(absolute))
    if unsafe:
        raise ValueError(
            f"{what} {str(absolute)!r} contains {unsafe.group()!r}; choose a folder without quotes and $%#?\\"
        )
    return absolute


def state_id(state_dir: Path) -> str:
    """Name the state folder in 12 hexadecimal digits: the same for every spelling of its path."""
    return hashlib.sha256(os.fsencode(state_dir.resolve())).hexdigest()[:12]


def default_memory_dir(state_dir: Path) -> Path:
    """The state folder's own folder in /dev/shm, or within the state folder where there is no /dev/shm."""
    shared_memory = Path("/dev/shm")  # noqa: S108 - the folder in it is made with mode 0700 and checked
    if shared_memory.is_dir():
        return shared_memory / f"sternpost-{os.getuid()}-{state_id(state_dir)}"
    return state_dir / "memory"


def make_private_folder(folder: Path) -> None:
    """Make the folder with mode 0700; raises `OSError` if somebody else put something there first."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise OSError(f"{folder} is not a folder of this user; remove it or choose another memory folder")


class LocalPaths:
    """Folders of one local cluster. Two clusters with different state folders never meet.

    `state_dir` survives everything; `memory_dir` is memory: what a node has there is gone when the node is.
    Raises `ValueError` for a folder whose name cannot stand in commands.
    """

    def __init__(self, state_dir: Path, memory_dir: Path | None = None) -> None:
        self.state_dir = _checked_folder(state_dir, "the state folder")
        self.state_id = state_id(self.state_dir)
        self.memory_dir = _checked_folder(memory_dir or default_memory_dir(self.state_dir), "the memory folder")
        self.objects = self.state_dir / "objects"
        self.logs = self.state_dir / "logs"
        self.volumes = self.state_dir / "volumes"
        """Persistent volumes: every node has them."""
        self.ports = self.state_dir / "ports"
        self.acknowledged = self.state_dir / "acknowledged-incidents"

    @property
    def control_plane(self) -> str:
        """What `STERNPOST_CONTROL_PLANE` is for every Pod."""
        return f"file://{self.objects}"

    def node_scratch(self, node: str) -> Path:
        """Folder of a node's disk volumes."""
        return self.state_dir / "scratch" / check_name(node)

    def node_memory(self, node: str) -> Path:
        """Folder of a node's memory volumes."""
        return self.memory_dir / check_name(node)

    def node_log(self, node: str) -> Path:
        """Where the node's agent writes its log."""
        return self.logs / "nodes" / f"{check_name(node)}.log"

    def markers(self, node: str | None = None) -> dict[str, str]:
        """Environment by which a process, and what descends from it, is known as this cluster's (and this node's)."""
        markers = {STATE_VARIABLE: self.state_id}
        if node is not None:
            markers[NODE_VARIABLE] = f"{self.state_id}/{check_name(node)}"
        return markers

    def make(self) -> None:
        """Make the folders; raises `OSError`."""
        for folder in (self.objects, self.logs, self.volumes, self.ports, self.acknowledged):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_private_folder(self.memory_dir)
