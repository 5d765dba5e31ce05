"""Where the harness keeps things: a cache that outlives clusters, and one folder for each cluster."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
"""The checkout."""
MODULES = ROOT / "tests" / "cluster" / "binaries"


def cache() -> Path:
    """Binaries and images, outside the checkout: a clean clone finds them, too."""
    if chosen := os.environ.get("STERNPOST_CLUSTER_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sternpost" / "cluster"


def default_cluster() -> Path:
    """The folder of the cluster that the tests make."""
    return Path(os.environ.get("STERNPOST_CLUSTER_DIR") or cache() / "clusters" / "test")


@contextmanager
def one_at_a_time(what: str) -> Iterator[None]:
    """Wait until no other process of this user does `what`: test processes share the cache, and the machine's packages."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"{what}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
