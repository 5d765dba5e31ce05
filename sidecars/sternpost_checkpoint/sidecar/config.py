"""What the sidecar is told by its environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from sternpost_checkpoint.adaptive.policy import CodecPolicy, Exactness, Preference
from sternpost_checkpoint.errors import CheckpointError

DEFAULT_GRACE_SECONDS = 30.0
DEFAULT_STALL_SECONDS = 120.0
DEFAULT_PIPELINE_BYTES = 256 * 2**20
MAX_PROCESSORS = 4
"""More would take from the trainer what no storage could carry away."""


class CheckpointPolicy(BaseModel):
    """`spec.checkpoint`; fields of later releases are ignored."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    storage: str = Field(min_length=1, max_length=2048)
    shared_memory: str = "1Gi"
    policy: Exactness = Exactness.LOSSLESS
    prefer: Preference = Preference.BALANCED
    max_update_error: float | None = Field(None, gt=0, le=1)
    max_chain: int = Field(8, ge=0, le=32)
    peer_replication: bool = True
    peer_memory: str | None = None
    keep: int = Field(3, ge=1, le=1000)

    @field_validator("shared_memory", "peer_memory", mode="before")
    @classmethod
    def _quantity(cls, value: object) -> object:
        if value is not None:
            parse_quantity(str(value))
        return value if value is None else str(value)

    @property
    def shared_memory_bytes(self) -> int:
        """Size of the volume that holds the slots."""
        return parse_quantity(self.shared_memory)

    @property
    def peer_memory_bytes(self) -> int:
        """What this worker lends to another one's states."""
        return parse_quantity(self.peer_memory) if self.peer_memory is not None else self.shared_memory_bytes

    @property
    def codec_policy(self) -> CodecPolicy:
        """The part that decides about codecs."""
        return CodecPolicy.of(self.policy, self.prefer, self.max_update_error, self.max_chain)


_SUFFIXES = {
    "": 1.0,
    "m": 1e-3,
    **{unit: 1000.0**power for power, unit in enumerate(("k", "M", "G", "T"), start=1)},
    **{f"{unit}i": 1024.0**power for power, unit in enumerate(("K", "M", "G", "T"), start=1)},
}
_QUANTITY = re.compile(r"^([0-9]+(?:\.[0-9]+)?)(m|k|Ki|M|Mi|G|Gi|T|Ti)?\Z")


def parse_quantity(text: str) -> int:
    """Bytes of a Kubernetes quantity such as `512Mi`. Raises ValueError."""
    match = _QUANTITY.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not a quantity such as 512Mi")
    return int(float(match.group(1)) * _SUFFIXES[match.group(2) or ""])


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
    ring_port: int | None = None
    ring_keys: Path | None = None
    """The folder with ca.crt, tls.crt, tls.key and the tokens of the ring."""
    listen_host: str = "0.0.0.0"  # noqa: S104 # other workers' sidecars connect to it
    stall_seconds: float = DEFAULT_STALL_SECONDS
    """A storage that takes nothing for so long is given up for this save."""
    memory_bytes: int = DEFAULT_PIPELINE_BYTES
    """Encoded bytes that may wait for the storage."""
    processors: int = 1
    """Threads that encode at the same time."""

    @property
    def base_bytes(self) -> int:
        """What may be kept of earlier states to encode the next ones against."""
        return self.policy.shared_memory_bytes // 2


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

    def number(name: str, default: float | None) -> float | None:
        text = environment.get(name, "")
        try:
            return float(text) if text else default
        except ValueError as error:
            raise CheckpointError(f"{name} is no number: {text!r}") from error

    def port(name: str) -> int | None:
        found = number(name, None)
        if found is not None and not (found.is_integer() and 0 <= found <= 65535):
            raise CheckpointError(f"{name} is no port: {found}")
        return None if found is None else int(found)

    keys = environment.get("STERNPOST_RING_KEYS", "")
    return Config(
        policy=policy,
        shm=Path(required("STERNPOST_SHM_DIR")),
        control=Path(required("STERNPOST_CONTROL_DIR")),
        job_uid=environment.get("STERNPOST_JOB_UID", ""),
        pod=environment.get("STERNPOST_POD", ""),
        metrics_port=port("STERNPOST_PORT_CHECKPOINT"),
        grace_seconds=number("STERNPOST_GRACE_SECONDS", DEFAULT_GRACE_SECONDS) or DEFAULT_GRACE_SECONDS,
        ring_port=port("STERNPOST_PORT_RING"),
        ring_keys=Path(keys) if keys else None,
        listen_host=environment.get("STERNPOST_LISTEN_HOST", "") or Config.listen_host,
        processors=usable_processors(),
    )


def usable_processors() -> int:
    """Threads that may encode: a quarter of the processors that this process may use, at least one."""
    return max(1, min(MAX_PROCESSORS, len(os.sched_getaffinity(0)) // 4))
