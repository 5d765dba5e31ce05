"""The images of all nodes, unpacked once: each new node gets hard links to the files of one store in the cache.

What a containerd has unpacked it never changes, and what a container writes to goes into a folder of its own; only the databases
and other small files have to be each node's.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

from harness import folders
from harness.commands import run
from harness.containerd import COMPONENT, Containerd
from harness.machine import Machine
from harness.processes import marked
from harness.report import step

_LINKED = ("io.containerd.content.v1.content/blobs", "io.containerd.snapshotter.v1.overlayfs/snapshots")
"""Folders whose files never change."""


def prepared(archives: Mapping[str, Path], pause: Path) -> Path:
    """A containerd's root folder with these images, from the cache or made now; those of other versions are removed."""
    listed = "\n".join(f"{name} {archive.stem}" for name, archive in sorted(archives.items()))
    place = folders.cache() / "stores" / hashlib.sha256(listed.encode()).hexdigest()[:16]
    if not place.exists():
        making = place.with_suffix(".new")
        _clear(making)
        for other in [path for path in place.parent.glob("*") if path.suffix != ".new"]:
            shutil.rmtree(other)
        with step("unpacking the images"):
            machine = Machine("images", making, pause)
            machine.boot()
            try:
                runtime = Containerd(machine)
                runtime.prepare()
                runtime.start()
                runtime.load(archives)
                machine.stop(COMPONENT)
            finally:
                machine.power_off()
            runtime.root.replace(place)
            _clear(making)
    return place


def _clear(folder: Path) -> None:
    for process in marked(folder):
        process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def place(store: Path, root: Path) -> None:
    """Make a node's root folder from the store; copies instead of links where they are on different file systems."""
    root.mkdir(parents=True)
    same = store.stat().st_dev == root.stat().st_dev
    for entry in sorted(store.iterdir()):
        linked = [folder for folder in _LINKED if folder.startswith(f"{entry.name}/")]
        if not linked:
            run("cp", "-a", entry, root)
            continue
        (root / entry.name).mkdir()
        for inner in sorted(entry.iterdir()):
            options = ["-a", "--link"] if same and f"{entry.name}/{inner.name}" in linked else ["-a"]
            run("cp", *options, inner, root / entry.name, timeout=300)
