"""Writes the Attempt object: never back to a lower number, and never over one that was not looked at."""

from __future__ import annotations

from typing import Any

from sternpost_operator.cluster.base import ConflictError, RefusedError
from sternpost_operator.cluster.kubernetes.client import KubernetesClient
from sternpost_operator.cluster.kubernetes.entries import AttemptEntry
from sternpost_operator.cluster.kubernetes.errors import ExistsError, NotFoundError, VersionConflictError
from sternpost_operator.cluster.kubernetes.inventory import Inventory
from sternpost_operator.cluster.kubernetes.paths import ATTEMPTS
from sternpost_operator.cluster.kubernetes.views import attempt_entry
from sternpost_operator.manifests.owned import owned_metadata
from sternpost_operator.manifests.service import pod_address
from sternpost_operator.resources import reserved
from sternpost_operator.resources.attempt import Attempt, AttemptAction, AttemptSpec
from sternpost_operator.resources.base import ObjectMeta
from sternpost_operator.resources.training_job import TrainingJob

TRIES = 3
"""Times that somebody else's write is looked at and written over, before it is left to the next reconcile."""


class Attempts:
    """The Attempt of each job. What the API server answers is put into the inventory at once."""

    def __init__(self, client: KubernetesClient, inventory: Inventory) -> None:
        self._client = client
        self._inventory = inventory

    def read(self, job: TrainingJob) -> AttemptSpec | None:
        """The Attempt of exactly this job, if there is one that can be understood."""
        entry = self._inventory.attempts.get(job.metadata.namespace, job.metadata.name)
        spec = entry.spec if entry is not None else None
        return spec if spec is not None and spec.job_uid == job.metadata.uid else None

    async def write(self, job: TrainingJob, spec: AttemptSpec) -> None:
        """Write it, for `run` with address and port of the rendezvous filled in.

        Raises `ConflictError` if a higher number is there, `RefusedError`, `OSError`.
        """
        namespace, name = job.metadata.namespace, job.metadata.name
        if spec.action is AttemptAction.RUN:
            spec = with_rendezvous(job, spec)
        entry = self._inventory.attempts.get(namespace, name)
        for _ in range(TRIES):
            _check(job, spec, entry)
            try:
                if entry is None:
                    written = await self._client.create(ATTEMPTS, namespace, manifest_of(job, spec, None))
                elif entry.spec == spec:
                    return
                else:
                    written = await self._client.replace(ATTEMPTS, namespace, name, manifest_of(job, spec, entry))
            except (ExistsError, VersionConflictError, NotFoundError):
                entry = await self._look(namespace, name)
                continue
            self._inventory.see(ATTEMPTS, written)
            return
        raise OSError(f"Attempt {name} was changed by others {TRIES} times in a row")

    async def _look(self, namespace: str, name: str) -> AttemptEntry | None:
        try:
            found = await self._client.get(ATTEMPTS, namespace, name)
        except NotFoundError:
            known = self._inventory.attempts.get(namespace, name)
            if known is not None:
                self._inventory.lose(ATTEMPTS, namespace, name, known.uid)
            return None
        self._inventory.see(ATTEMPTS, found)
        return attempt_entry(found)


def with_rendezvous(job: TrainingJob, spec: AttemptSpec) -> AttemptSpec:
    """Where the ranks meet: at worker 0's Pod, whose name is known before it is up; consecutive attempts at different ports."""
    zero = next((worker for worker in spec.workers if worker.index == 0), None)
    if zero is None:
        return spec
    port = reserved.RENDEZVOUS_PORT + spec.number % reserved.RENDEZVOUS_PORTS
    return spec.model_copy(update={"master_address": _address(job, zero.pod, zero.address), "master_port": port})


def manifest_of(job: TrainingJob, spec: AttemptSpec, entry: AttemptEntry | None) -> dict[str, Any]:
    """The object; over `entry`, and only over that version of it, if there is one."""
    metadata = owned_metadata(job, job.metadata.name)
    if entry is not None:
        metadata |= {"uid": entry.uid, "resourceVersion": str(entry.version)}
    attempt = Attempt(metadata=ObjectMeta(name=job.metadata.name, namespace=job.metadata.namespace), spec=spec)
    return {**attempt.to_wire(), "metadata": metadata}


def _address(job: TrainingJob, pod: str, address: str) -> str:
    pod_spec = job.spec.template.get("spec") or {}
    slot = pod.rpartition("-")[2]
    if pod_spec.get("hostNetwork") or not slot.isdecimal():
        return address  # it asks its node's name servers, which know nothing of the Pod's name
    return pod_address(job, int(slot))


def _check(job: TrainingJob, spec: AttemptSpec, entry: AttemptEntry | None) -> None:
    if entry is None:
        return
    if entry.owner and entry.owner != job.metadata.uid:
        raise OSError(f"Attempt {entry.name} is of an earlier job of this name; waiting until it is removed")
    if not entry.owner:
        raise RefusedError(f"Attempt {entry.name} is not this job's; remove it, or give the job another metadata.name")
    if entry.spec is not None and entry.spec.job_uid == job.metadata.uid and entry.spec.number > spec.number:
        raise ConflictError(f"attempt {entry.spec.number} of job {spec.job} is written; {spec.number} is too late")
