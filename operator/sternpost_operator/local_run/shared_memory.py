"""Whether this machine's shared memory is enough for a job."""

from __future__ import annotations

import shutil
from pathlib import Path

from sternpost_operator.local_run.state import StateError
from sternpost_operator.resources.quantity import parse_bytes
from sternpost_operator.resources.training_job import TrainingJobSpec

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 -- only its size is asked for here
_MIB = 2**20


def check(spec: TrainingJobSpec, free_bytes: int | None) -> None:
    """Raise `StateError` when the Pods' memory volumes do not fit; `free_bytes` is None without shared memory."""
    if free_bytes is None:
        raise StateError(
            f"{SHARED_MEMORY} is missing, and checkpoints go through shared memory: mount it with "
            f"`mount -t tmpfs tmpfs {SHARED_MEMORY}`, or give the container shared memory (docker run --shm-size)"
        )
    if spec.checkpoint is None:
        return
    pods = spec.max_workers + spec.spares
    each = parse_bytes(spec.checkpoint.shared_memory)
    if pods * each > free_bytes:
        fits = free_bytes // pods // _MIB
        raise StateError(
            f"spec.checkpoint.sharedMemory is {spec.checkpoint.shared_memory} for each of {pods} Pods, "
            f"{pods * each / _MIB:.0f} MiB in all, but {SHARED_MEMORY} has {free_bytes / _MIB:.0f} MiB free: "
            f"set sharedMemory to at most {fits}Mi if two generations of a worker's state fit into that, use fewer "
            f"workers and spares, or enlarge it with `mount -o remount,size=SIZE {SHARED_MEMORY}`"
        )


def free_bytes() -> int | None:
    """What is free now; None if there is no shared memory."""
    try:
        return shutil.disk_usage(SHARED_MEMORY).free
    except FileNotFoundError:
        return None
