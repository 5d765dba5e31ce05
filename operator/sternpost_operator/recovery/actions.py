"""What a reconcile does after the status is written. Every action is idempotent."""

from __future__ import annotations

from dataclasses import dataclass

from sternpost_operator.resources.attempt import AttemptSpec
from sternpost_operator.resources.training_job_status import Incident


@dataclass(frozen=True)
class CreatePod:
    """POST the Pod of a slot; that it exists already is no error."""

    slot: int
    excluded_nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeletePod:
    """Delete exactly this Pod object: the uid is a precondition."""

    name: str
    uid: str
    grace_seconds: float
    force: bool = False
    """Remove the object without waiting for its node."""


@dataclass(frozen=True)
class WriteAttempt:
    """Write the Attempt object; refused by the cluster if a higher number is there.

    `master_address` and `master_port` are filled in by the cluster: only it knows worker 0's address and free ports.
    """

    spec: AttemptSpec


@dataclass(frozen=True)
class RecordIncident:
    """Tell the memory service; repeated until it is acknowledged."""

    incident: Incident


@dataclass(frozen=True)
class DeleteJob:
    """Delete the job itself, whose time after its end has run out; that it is gone already is no error."""


Action = CreatePod | DeletePod | WriteAttempt | RecordIncident | DeleteJob
