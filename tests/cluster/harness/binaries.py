"""Kubernetes and what goes with it, built from source through the Go module proxy, into the cache."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness import folders
from harness.commands import HarnessError, run
from harness.report import step

KUBERNETES = "v1.34.4"
BUILD_SECONDS = 3600


@dataclass(frozen=True)
class Program:
    """One program to build: the folder of its module below `binaries/`, and its package."""

    name: str
    module: str
    package: str = "."
    flags: str = "-s -w"
    static: bool = False


def _kubernetes(name: str) -> Program:
    version = f"-s -w -X k8s.io/component-base/version.gitVersion={KUBERNETES}"
    return Program(name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}", version)


PROGRAMS = (
    Program("pause", "pause", static=True),
    # The largest first: it compiles what the others share.
    _kubernetes("kube-apiserver"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kubelet"),
    _kubernetes("kube-proxy"),
    _kubernetes("kube-scheduler"),
    Program("coredns", "coredns", static=True),
)
KUBECTL = _kubernetes("kubectl")


def build() -> dict[str, Path]:
    """All programs by name; those that the cache lacks are built, one after another with all processors.

    etcd is Debian's; kubectl, too, where the machine has one. Raises `HarnessError` without Go.
    """
    found = {program.name: _built(program) for program in PROGRAMS}
    found["etcd"] = Path(shutil.which("etcd") or "/usr/bin/etcd")
    found["kubectl"] = kubectl()
    return found


def kubectl() -> Path:
    """The machine's kubectl, or one that is built."""
    there = shutil.which("kubectl")
    return Path(there) if there else _built(KUBECTL)


def _built(program: Program) -> Path:
    module = folders.MODULES / program.module
    file = folders.cache() / "bin" / _key(module, program) / program.name
    if file.exists():
        return file
    with folders.one_at_a_time("build"):
        return file if file.exists() else _build(program, module, file)


def _build(program: Program, module: Path, file: Path) -> Path:
    go = shutil.which("go")
    if go is None:
        raise HarnessError(
            f"{program.name} has to be built, and there is no Go; install Go 1.24 or newer (https://go.dev/dl),"
            " or set KUBECONFIG to a cluster made with `make kind`"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    with step(f"building {program.name}"), tempfile.TemporaryDirectory(dir=file.parent) as folder:
        # Built beside its place and moved there: a build that is broken off leaves no half program.
        made = Path(folder) / program.name
        run(
            *(go, "build", "-trimpath", "-ldflags", program.flags, "-o", made, program.package),
            cwd=module,
            environment={"CGO_ENABLED": "0"} if program.static else {},
            timeout=BUILD_SECONDS,
        )
        made.replace(file)
    return file


def _key(module: Path, program: Program) -> str:
    digest = hashlib.sha256(program.flags.encode())
    for path in sorted(module.iterdir()):
        if path.suffix in {".mod", ".sum", ".go"} and path.name != "tools.go":
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return f"{program.module}-{digest.hexdigest()[:16]}"
