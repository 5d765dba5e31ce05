"""What the trainer is told by its environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sternpost_checkpoint.errors import CheckpointError


@dataclass(frozen=True)
class Environment:
    """Where the shared memory is, and on whose behalf this process trains."""

    shm: Path
    attempt_id: str
    attempt_number: int
    job_uid: str = ""
    control: Path | None = None
    """Where attempt.json is; None where nobody said."""


def read_environment(environment: Mapping[str, str]) -> Environment:
    """Read it. Raises CheckpointError that tells how to run under Sternpost."""
    shm = environment.get("STERNPOST_SHM_DIR", "")
    if not shm:
        raise CheckpointError(
            "STERNPOST_SHM_DIR is not set: the Checkpointer hands its states to a sidecar, so the script must run under"
            " Sternpost: `sternpost run job.yaml` on this machine, or as a TrainingJob, with spec.checkpoint set"
        )
    if not Path(shm).is_dir():
        raise CheckpointError(
            f"STERNPOST_SHM_DIR is {shm!r}, which is not a folder: is the shared memory volume mounted?"
        )
    attempt, number = environment.get("STERNPOST_ATTEMPT", ""), environment.get("STERNPOST_ATTEMPT_NUMBER", "")
    if not attempt or not number.isdecimal():
        raise CheckpointError(
            "STERNPOST_ATTEMPT or STERNPOST_ATTEMPT_NUMBER is not set: the launcher sets both; run the script through"
            " it, and pass its environment on"
        )
    control = environment.get("STERNPOST_CONTROL_DIR", "")
    return Environment(
        Path(shm),
        attempt,
        int(number),
        job_uid=environment.get("STERNPOST_JOB_UID", ""),
        control=Path(control) if control else None,
    )
