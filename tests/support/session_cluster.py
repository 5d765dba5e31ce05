"""The cluster that the tests of a session run on: one that they make, one that the harness keeps up, or somebody else's."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import binaries, folders, images
from harness.cluster import Cluster, down, require_packages, require_root
from harness.commands import HarnessError
from harness.report import say
from kube import Kube

STORAGE = "STERNPOST_TEST_STORAGE"
"""For a foreign cluster: a folder of this machine that its nodes see under the same path."""


@dataclass(frozen=True)
class SessionCluster:
    """A cluster and what the tests may do with it."""

    kube: Kube
    storage: Path
    """A folder that all nodes see."""
    own: Cluster | None
    """None when the nodes are not the harness's: nothing can be done to them."""


def helm_program() -> Path:
    """Helm of the virtual environment, or the machine's."""
    beside = Path(sys.executable).parent / "helm"
    found = str(beside) if beside.exists() else shutil.which("helm")
    if found is None:
        raise HarnessError("there is no helm; run: make setup")
    return Path(found)


@contextmanager
def session_cluster() -> Iterator[SessionCluster]:
    """`KUBECONFIG`'s cluster if that is set; otherwise one is made, and removed afterwards.

    A kubeconfig that the harness wrote (`python -P -m harness up`) brings its nodes with it.
    """
    chosen = os.environ.get("KUBECONFIG")
    if not chosen:
        with _made() as cluster:
            yield _of_harness(cluster)
    elif (Path(chosen).parent / "cluster.json").exists():
        cluster = Cluster(Path(chosen).parent)
        if not cluster.up:
            raise HarnessError(f"the cluster of {chosen} is not up; run: python -P -m harness --dir … up")
        yield _of_harness(cluster)
    else:
        storage = Path(os.environ.get(STORAGE) or "/tmp/sternpost-kind")  # noqa: S108 -- as kind-config.yaml has it
        storage.mkdir(exist_ok=True)
        yield SessionCluster(Kube(Path(chosen), binaries.kubectl(), helm_program()), storage, None)


@contextmanager
def _made() -> Iterator[Cluster]:
    require_root()
    require_packages()
    folder = folders.default_cluster()
    down(folder)
    cluster = Cluster(folder)
    built = [images.build(name) for name in images.ALL]
    try:
        cluster.create(names=built)
        cluster.kubectl("apply", "--server-side", "-f", folders.ROOT / "crds")
        yield cluster
    finally:
        if os.environ.get("STERNPOST_CLUSTER_KEEP"):
            say(f"kept: {cluster.kubeconfig}")
        else:
            down(folder)


def _of_harness(cluster: Cluster) -> SessionCluster:
    storage = cluster.folder / "storage"
    storage.mkdir(exist_ok=True)
    return SessionCluster(Kube(cluster.kubeconfig, cluster.binaries["kubectl"], helm_program()), storage, cluster)
