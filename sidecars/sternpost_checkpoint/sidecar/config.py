"""What the sidecar is told by its environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from sternpost_checkpoint.errors import CheckpointError

DEFAULT_GRACE_SECONDS = 30.0


class CheckpointPolicy(BaseModel):
    """`spec.checkpoint`; fields of later releases are ignored."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    storage: str = Field(min_length=1, max_length=2048)
    shared_memory: str = "1Gi"
    policy: Literal["lossless"] = "lossless"
    keep: int = Field(3, ge=1, le=1000)


@dataclass(frozen=True)
class Config:
    """Everything, checked."""

    policy: CheckpointPolicy
    shm: Path
    control: Path
    job_uid: str
    pod: str
    metrics_port: int | None
    grace_seconds: float


def read_config(environment: Mapping[str, str]) -> Config:
    """Read the environment. Raises CheckpointError naming the variable that is missing or wrong."""

    def required(name: str) -> str:
        value = environment.get(name, "")
        if not value:
            raise CheckpointError(f"{name} is not set: the sidecar is started by Sternpost in a worker Pod")
        return value

    try:
        policy = CheckpointPolicy.model_validate_json(required("STERNPOST_CHECKPOINT"))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"STERNPOST_CHECKPOINT (spec.checkpoint) is wrong at {where}: {first['msg']}") from error
    port = environment.get("STERNPOST_PORT_CHECKPOINT", "")
    try:
        metrics_port = int(port) if port else None
        grace = float(environment.get("STERNPOST_GRACE_SECONDS", "") or DEFAULT_GRACE_SECONDS)
    except ValueError as error:
        raise CheckpointError(f"STERNPOST_PORT_CHECKPOINT or STERNPOST_GRACE_SECONDS is no number: {error}") from error
    return Config(
        policy=policy,
        shm=Path(required("STERNPOST_SHM_DIR")),
        control=Path(required("STERNPOST_CONTROL_DIR")),
        job_uid=environment.get("STERNPOST_JOB_UID", ""),
        pod=environment.get("STERNPOST_POD", ""),
        metrics_port=metrics_port,
        grace_seconds=grace,
    )
