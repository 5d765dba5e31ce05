"""The machine's Python and torch, mounted read-only into a trainer: gigabytes that no image has to carry.

It is the very Python and torch that the tests themselves run with, so that weights can be compared with those of a local run.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PACKAGES = ("sternpost_checkpoint", "sternpost_eagle_eye")
PYTHON = "/opt/python"
TEMPORARY = "/tmp"  # noqa: S108 -- the container's own
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOST_ROOT = "STERNPOST_TEST_HOST_ROOT"
"""Where a foreign cluster's nodes have this machine's file system mounted (`kind-config.yaml`); empty on nodes of our own."""


@dataclass
class Mounted:
    """What a Pod template needs for it: volumes, mounts of the container, and environment."""

    volumes: list[dict[str, Any]] = field(default_factory=list)
    mounts: list[dict[str, Any]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, folder: Path, path: str, *, read_only: bool = True) -> None:
        """Mount a folder of this machine at `path`."""
        place = os.environ.get(HOST_ROOT, "") + str(folder.resolve())
        self.volumes.append({"name": name, "hostPath": {"path": place, "type": "Directory"}})
        self.mounts.append({"name": name, "mountPath": path, "readOnly": read_only})

    def variables(self) -> list[dict[str, str]]:
        """The environment as a container has it."""
        return [{"name": name, "value": value} for name, value in self.environment.items()]


def torch_environment() -> Mounted:
    """Python, torch and the trainer's side of Sternpost, as they are here.

    Where Python is the system's own, the image's is used: harness images are made of the same distribution.
    """
    mounted = Mounted(
        environment={
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            # torch wants a folder to write to and a name of the user; the read-only root file system has neither.
            "HOME": TEMPORARY,
            "USER": "trainer",
        }
    )
    mounted.volumes.append({"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}})
    mounted.mounts.append({"name": "tmp", "mountPath": TEMPORARY})
    if Path(sys.base_prefix) != Path("/usr"):
        mounted.add("python", Path(sys.base_prefix), PYTHON)
        mounted.environment["PATH"] = f"{PYTHON}/bin:{_PATH}"
        mounted.environment["LD_LIBRARY_PATH"] = f"{PYTHON}/lib"
    folders = [Path(sysconfig.get_path("purelib")), *_linked_sources()]
    paths = []
    for number, folder in enumerate(folders):
        paths.append(f"/opt/packages-{number}")
        mounted.add(f"packages-{number}", folder, paths[-1])
    mounted.environment["PYTHONPATH"] = ":".join(paths)
    return mounted


def _linked_sources() -> list[Path]:
    """Source folders of our packages where the project is linked (`make develop`) and not installed."""
    installed = Path(sysconfig.get_path("purelib")).resolve()
    found: list[Path] = []
    for name in PACKAGES:
        specification = importlib.util.find_spec(name)
        if specification is None or specification.origin is None:
            raise ModuleNotFoundError(f"{name} is not installed; run: make setup", name=name)
        folder = Path(specification.origin).resolve().parent.parent
        if folder != installed and folder not in found:
            found.append(folder)
    return found
