"""The environment of a rank."""

from __future__ import annotations

from collections.abc import Mapping

from sternpost_launcher.attempt_file import Attempt

ATTEMPT_VARIABLE = "STERNPOST_ATTEMPT"


def rank_environment(inherited: Mapping[str, str], attempt: Attempt, worker: int, local_rank: int) -> dict[str, str]:
    """`inherited` and what tells rank `worker * ranksPerWorker + local_rank` who it is."""
    per_worker = attempt.ranks_per_worker
    port = str(attempt.master_port)
    environment = dict(inherited)
    # Without it the last words of a rank that dies would be lost in its buffer.
    environment.setdefault("PYTHONUNBUFFERED", "1")
    environment.update(
        {
            "RANK": str(worker * per_worker + local_rank),
            "WORLD_SIZE": str(attempt.world_size),
            "LOCAL_RANK": str(local_rank),
            "LOCAL_WORLD_SIZE": str(per_worker),
            "GROUP_RANK": str(worker),
            "NODE_RANK": str(worker),
            "MASTER_ADDR": attempt.master_address,
            "MASTER_PORT": port,
            "PET_NNODES": str(len(attempt.workers)),
            "PET_NPROC_PER_NODE": str(per_worker),
            "PET_NODE_RANK": str(worker),
            "PET_MASTER_ADDR": attempt.master_address,
            "PET_MASTER_PORT": port,
            ATTEMPT_VARIABLE: attempt.id,
            "STERNPOST_ATTEMPT_NUMBER": str(attempt.number),
            "STERNPOST_WORKER": str(worker),
        }
    )
    metrics_port = inherited.get(f"STERNPOST_PORT_METRICS_{local_rank}")
    if metrics_port is not None:
        environment["STERNPOST_METRICS_PORT"] = metrics_port
    else:
        environment.pop("STERNPOST_METRICS_PORT", None)
    return environment
