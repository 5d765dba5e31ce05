"""Measure the images: what each adds to its base, unpacked, and what a start costs. Needs buildah, as root.

python -m benchmarks.images.size --base IMAGE [--volume HOST:IMAGE:ro …]   # builds them from the Dockerfile
python -m benchmarks.images.size --base IMAGE --tag PREFIX/{}:TAG           # takes images that exist
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.results import Check, progress, publish

ROOT = Path(__file__).resolve().parents[2]
PROBE = Path(__file__).with_name("start_probe.py")
MEGABYTE = 1_000_000
START_CPU_SECONDS = 3.0
RUNS = 3


@dataclass(frozen=True)
class Target:
    """One image: its budget, and how a start of its service looks outside a cluster."""

    megabytes: int
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


# Paths in the container, whose /tmp is a folder of this run alone.
_SCRATCH = "/tmp"  # noqa: S108
_POD = {
    "STERNPOST_JOB": "job",
    "STERNPOST_JOB_UID": "5d0b9f6e-0000-4000-8000-000000000000",
    "STERNPOST_NAMESPACE": "default",
    "STERNPOST_POD": "job-0",
    "STERNPOST_POD_UID": "5d0b9f6e-0000-4000-8000-000000000001",
    "STERNPOST_NODE": "node-1",
    "STERNPOST_CONTROL_DIR": f"{_SCRATCH}/control",
    "STERNPOST_SHM_DIR": f"{_SCRATCH}/shm",
    "STERNPOST_CONTROL_PLANE": f"file://{_SCRATCH}/objects",
    "STERNPOST_TOKEN_FILE": f"{_SCRATCH}/token",
    "STERNPOST_LISTEN_HOST": "127.0.0.1",
    "STERNPOST_PORT_METRICS_0": "9400",
    "STERNPOST_PORT_EAGLE_EYE": "9470",
    "STERNPOST_PORT_CHECKPOINT": "9471",
    "STERNPOST_RANKS_PER_WORKER": "1",
    "STERNPOST_GRACE_SECONDS": "10",
    "STERNPOST_EAGLE_EYE": "{}",
    "STERNPOST_CHECKPOINT": json.dumps({"storage": f"file://{_SCRATCH}/storage"}),
}
TARGETS = {
    # Nobody answers there: the process is up, and tries again.
    "operator": Target(
        250,
        ("sternpost", "operator"),
        {"KUBECONFIG": f"{_SCRATCH}/kubeconfig", "STERNPOST_NAMESPACE": "sternpost-system"},
    ),
    "eagle-eye": Target(480, ("python3", "-m", "sternpost_eagle_eye", "sidecar"), _POD),
    "checkpoint": Target(400, ("python3", "-m", "sternpost_checkpoint", "sidecar"), _POD),
    "memory": Target(
        250, ("sternpost-memory", "serve", "--store", f"sqlite:{_SCRATCH}/memory.db", "--no-auth", "--port", "0")
    ),
}
_KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "nowhere",
    "clusters": [{"name": "nowhere", "cluster": {"server": "http://127.0.0.1:1"}}],
    "users": [{"name": "nobody", "user": {"token": "none"}}],
    "contexts": [{"name": "nowhere", "context": {"cluster": "nowhere", "user": "nobody"}}],
}


def buildah(*arguments: str | Path) -> str:
    """Run buildah and return what it prints; raises `CalledProcessError`."""
    result = subprocess.run(
        ["buildah", *map(str, arguments)],  # noqa: S607 -- the one on the PATH is meant
        check=True,
        stdout=subprocess.PIPE,
        stderr=sys.stderr,
        text=True,
    )
    return result.stdout.strip()


@contextmanager
def container_of(image: str) -> Iterator[str]:
    """A working container, removed at the end."""
    container = buildah("from", "--pull-never", image)
    try:
        yield container
    finally:
        buildah("rm", container)


def tree_bytes(folder: Path) -> int:
    """Bytes of all files below, each counted once however often it is linked."""
    seen: dict[tuple[int, int], int] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            status = (Path(parent) / name).lstat()
            seen[status.st_dev, status.st_ino] = status.st_size
    return sum(seen.values())


def image_bytes(image: str) -> int:
    """The size of an image's file system."""
    with container_of(image) as container:
        return tree_bytes(Path(buildah("mount", container)))


def has_module(image: str, name: str) -> bool:
    """Whether Python in the image finds a module."""
    code = f"import importlib.util as u; print(u.find_spec({name!r}) is not None)"
    with container_of(image) as container:
        return buildah("run", "--isolation", "chroot", container, "--", "python3", "-c", code) == "True"


def start_cost(image: str, target: Target, scratch: Path) -> dict[str, Any]:
    """What one start of the image's service costs."""
    with container_of(image) as container:
        variables = [part for name, value in target.environment.items() for part in ("--env", f"{name}={value}")]
        output = buildah(
            *("run", "--isolation", "chroot", *variables),
            *("--volume", f"{PROBE}:/probe.py:ro", "--volume", f"{scratch}:{_SCRATCH}:rw"),
            *(container, "--", "python3", "/probe.py", *target.command),
        )
    figures: dict[str, Any] = json.loads(output.splitlines()[-1])
    return figures


def scratch_files(folder: Path) -> None:
    """What the services expect to find in a Pod."""
    folder.chmod(0o777)
    for name in ("control", "shm", "objects", "storage"):
        (folder / name).mkdir()
        (folder / name).chmod(0o777)
    (folder / "token").write_text("0" * 64, encoding="utf-8")
    (folder / "kubeconfig").write_text(json.dumps(_KUBECONFIG), encoding="utf-8")


def build(name: str, base: str, volumes: list[str]) -> str:
    """Build one target; returns the image."""
    image = f"localhost/sternpost-size/{name}:latest"
    mounts = [part for volume in volumes for part in ("--volume", volume)]
    buildah(
        *("bud", "--isolation", "chroot", "--layers", "--quiet", "--build-arg", f"BASE={base}"),
        *mounts,
        *("--target", name, "--tag", image, str(ROOT)),
    )
    return image


def measure(name: str, image: str, base_bytes: int) -> tuple[dict[str, Any], list[Check]]:
    """The figures of one image, and whether they hold."""
    target = TARGETS[name]
    megabytes = round((image_bytes(image) - base_bytes) / MEGABYTE, 1)
    fits = megabytes <= target.megabytes
    starts = []
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory(prefix="sternpost-size-") as folder:
            scratch_files(Path(folder))
            starts.append(start_cost(image, target, Path(folder)))
    cpu = max(start["cpuSeconds"] for start in starts)
    started = sum(start["running"] for start in starts)
    torch = has_module(image, "torch")
    progress(f"{name}: {megabytes:.0f} MB, a start {cpu:.2f} s of CPU")
    return {"image": image, "megabytes": megabytes, "starts": starts}, [
        Check(f"{name}: unpacked over the base", megabytes, "MB", f"<= {target.megabytes}", fits),
        Check(f"{name}: CPU time of a start", cpu, "s", f"<= {START_CPU_SECONDS:g}", cpu <= START_CPU_SECONDS),
        Check(f"{name}: starts that settled", started, "starts", f"{RUNS}", started == RUNS),
        Check(f"{name}: torch", float(torch), "packages", "0", not torch),
    ]


def main() -> None:
    """Parse the arguments, build where needed, measure, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="the base image, for the build and to compare with")
    parser.add_argument("--tag", help="existing images, {} stands for the target; without it they are built")
    parser.add_argument("--volume", action="append", default=[], help="mounted while building, as buildah takes it")
    parser.add_argument("--only", choices=TARGETS, action="append", help="one target, may be given several times")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    base_bytes = image_bytes(options.base)
    figures: dict[str, Any] = {"baseMegabytes": round(base_bytes / MEGABYTE, 1), "images": {}}
    checks: list[Check] = []
    for name in options.only or TARGETS:
        image = options.tag.format(name) if options.tag else build(name, options.base, options.volume)
        figures["images"][name], found = measure(name, image, base_bytes)
        checks += found
    publish("images.size", figures, checks, as_json=options.json)


if __name__ == "__main__":
    main()
