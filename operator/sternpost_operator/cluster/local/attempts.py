"""Writes the Attempt object: never back to a lower number, with a rendezvous port that is new for each attempt."""

from __future__ import annotations

from pydantic import ValidationError

from sternpost_operator.cluster.base import ConflictError
from sternpost_operator.cluster.local.environment import ADDRESS
from sternpost_operator.cluster.local.object_store import ObjectStore
from sternpost_operator.cluster.local.ports import PortPool
from sternpost_operator.resources.attempt import Attempt, AttemptAction, AttemptSpec
from sternpost_operator.resources.base import ObjectMeta

PORT_REST_SECONDS = 600.0
"""How long a rendezvous port is not used again: an old rank that still tries it must find nobody."""


def read_attempt(store: ObjectStore, job: str, job_uid: str) -> AttemptSpec | None:
    """The Attempt of exactly this job, or None; one that cannot be read is logged and counts as none."""
    value = store.get("attempts", job)
    if value is None:
        return None
    try:
        spec = Attempt.model_validate(value).spec
    except ValidationError as error:
        store.report_once("attempt", job, str(error)[:1000])
        return None
    return spec if spec.job_uid == job_uid else None


def write_attempt(store: ObjectStore, ports: PortPool, spec: AttemptSpec, *, namespace: str) -> AttemptSpec:
    """Write it, with address and port filled in for `run`; what is stored now.

    Raises `ConflictError` if a higher number is there, `OSError`.
    """
    stored = read_attempt(store, spec.job, spec.job_uid)
    if stored is not None and stored.number > spec.number:
        raise ConflictError(f"attempt {stored.number} of job {spec.job} is written already; {spec.number} is too late")
    if spec.action is AttemptAction.RUN:
        if stored is not None and stored.id == spec.id and stored.master_port:
            port = stored.master_port
        else:
            ports.release(f"_rendezvous/{spec.job}/", older_than_seconds=PORT_REST_SECONDS)
            port = ports.take(f"_rendezvous/{spec.job}/{spec.number}")
        spec = spec.model_copy(update={"master_address": ADDRESS, "master_port": port})
    if stored != spec:
        attempt = Attempt(metadata=ObjectMeta(name=spec.job, namespace=namespace), spec=spec)
        store.put("attempts", spec.job, attempt.to_wire(), durable=True)
    return spec
