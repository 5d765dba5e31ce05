"""Attempt: the one control object of a job. The operator writes it, the sidecars hand it to the launchers."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Literal

from pydantic import Field

from sternpost_operator.resources.base import API_VERSION, Model, ObjectMeta, Time, list_map
from sternpost_operator.resources.training_job import EagleEyePolicy

MAX_WORKERS = 10_000
MAX_SPARES = 1000


class AttemptAction(StrEnum):
    """What every worker shall do."""

    RUN = "run"
    """Start the ranks of this attempt."""
    HOLD = "hold"
    """End the ranks of any earlier attempt, keep the memory, wait: `run` follows with the same id."""
    STOP = "stop"
    """End the ranks, flush the newest checkpoint, exit."""


class AttemptMember(Model):
    """A Pod of the attempt."""

    pod: str
    uid: str
    node: str
    address: str
    """Host name or IP at which the Pod's ports are reached."""
    eagle_eye_port: int = Field(ge=1, le=65535)
    ring_port: int | None = Field(None, ge=1, le=65535)
    """Where its checkpoint sidecar keeps and gives copies of states; none where the job has no such ring."""


class AttemptWorker(AttemptMember):
    """A Pod that has ranks: `index * ranksPerWorker` and on."""

    index: int = Field(ge=0)


class AttemptSpec(Model):
    """Numbers grow by one; an id names one run of the ranks."""

    job: str
    job_uid: str
    number: int = Field(ge=1)
    id: str
    action: AttemptAction
    ranks_per_worker: int = Field(1, ge=1)
    world_size: int = Field(0, ge=0)
    """Ranks in all; 0 while on hold."""
    workers: list[AttemptWorker] = Field(
        default_factory=list, max_length=MAX_WORKERS, json_schema_extra=list_map("index")
    )
    """Sorted by index, complete for `run`; empty for `hold` and `stop`."""
    spares: list[AttemptMember] = Field(default_factory=list, max_length=MAX_SPARES, json_schema_extra=list_map("uid"))
    previous_workers: list[AttemptWorker] = Field(
        default_factory=list, max_length=MAX_WORKERS, json_schema_extra=list_map("index")
    )
    """On hold: who was which worker before, so that survivors keep their index and with it their memory."""
    master_address: str = ""
    master_port: int = Field(0, ge=0, le=65535)
    """A port of worker 0's Pod that no earlier attempt used lately: an old rank cannot even connect."""
    complete: bool = False
    """All ranks have succeeded: the launchers exit. Until then a worker that is done waits, for should another fail,
    its Pod and its memory are needed once more."""
    save_at_step: int | None = Field(None, ge=0)
    """While it runs: all ranks save a checkpoint just after this step, because a node of theirs is about to go. Whoever
    learns of it too late does not save; nothing is restarted because of it."""
    grace_seconds: float = 10
    eagle_eye: EagleEyePolicy | None = None
    """The detectors' thresholds that count now: changed in the job while it runs, they change here, and nothing restarts."""
    issued_at: Time


class Attempt(Model):
    """`attempts.sternpost.dev/v1alpha1`, named like its job."""

    api_version: Literal["sternpost.dev/v1alpha1"] = API_VERSION
    kind: Literal["Attempt"] = "Attempt"
    metadata: ObjectMeta
    spec: AttemptSpec


def attempt_id(job_uid: str, number: int) -> str:
    """The id of attempt `number`: the same however often it is computed, never that of another job's."""
    digest = hashlib.sha256(f"{job_uid}/{number}".encode()).hexdigest()
    return f"{number}-{digest[:8]}"
