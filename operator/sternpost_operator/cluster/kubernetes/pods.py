"""Pods of a job: created under their slot's name, deleted by their uid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import structlog

from sternpost_operator.cluster.base import RefusedError
from sternpost_operator.cluster.kubernetes.client import KubernetesClient
from sternpost_operator.cluster.kubernetes.errors import ExistsError, NotFoundError, VersionConflictError
from sternpost_operator.cluster.kubernetes.inventory import Inventory
from sternpost_operator.cluster.kubernetes.paths import PODS
from sternpost_operator.cluster.kubernetes.views import owner_of
from sternpost_operator.cluster.pod_facts import EXCLUDED_ANNOTATION
from sternpost_operator.manifests.blame import in_template
from sternpost_operator.manifests.images import Images
from sternpost_operator.recovery.actions import CreatePod, DeletePod
from sternpost_operator.resources.template import TemplateError
from sternpost_operator.resources.training_job import TrainingJob

_logger = structlog.get_logger(__name__)

CONTROL_PLANE = "kubernetes:"
FIRST_PAUSE_SECONDS = 2.0
MAX_PAUSE_SECONDS = 60.0
"""How long a Pod that the API server refused is not tried again."""


class PodBuilder(Protocol):
    """Makes the manifest of a slot's Pod."""

    def __call__(
        self, job: TrainingJob, slot: int, excluded_nodes: Sequence[str], *, images: Images, control_plane: str
    ) -> dict[str, Any]:
        """The Pod; raises `TemplateError`."""
        ...


class Pods:
    """Creates and deletes. What the API server answers is put into the inventory at once: no watch is that quick."""

    def __init__(
        self,
        client: KubernetesClient,
        inventory: Inventory,
        images: Images,
        builder: PodBuilder,
        clock: Callable[[], float],
    ) -> None:
        self._client = client
        self._inventory = inventory
        self._images = images
        self._builder = builder
        self._clock = clock
        self._refusals: dict[str, _Refusal] = {}

    async def create(self, job: TrainingJob, action: CreatePod) -> None:
        """POST the Pod of a slot; that this job's own is there already is no error.

        Raises `RefusedError`, also without asking again where the API server refused a moment ago, and `OSError`.
        """
        refusal = self._refusals.get(job.metadata.uid)
        if refusal is not None and refusal.generation == job.metadata.generation and self._clock() < refusal.until:
            raise RefusedError(refusal.message)
        namespace = job.metadata.namespace
        try:
            manifest = self._manifest(job, action)
            name = manifest["metadata"]["name"]
            created = await self._client.create(PODS, namespace, manifest)
        except ExistsError:
            await self._require_own(job, name)
        except RefusedError as error:
            message = in_template(job, str(error))
            self._refused(job, refusal, message)
            raise RefusedError(message) from error
        else:
            self._inventory.see(PODS, created)
            _logger.info("pod created", namespace=namespace, pod=name, uid=created["metadata"]["uid"])
        self._refusals.pop(job.metadata.uid, None)

    async def delete(self, namespace: str, action: DeletePod) -> None:
        """Delete exactly this Pod; that it is gone already is no error. Raises `OSError`."""
        try:
            answer = await self._client.delete(
                PODS,
                namespace,
                action.name,
                uid=action.uid,
                grace_seconds=0 if action.force else action.grace_seconds,
            )
        except (NotFoundError, VersionConflictError):
            self._inventory.lose(PODS, namespace, action.name, action.uid)
            return
        metadata = answer.get("metadata") or {}
        if answer.get("kind") == "Pod" and metadata.get("uid") == action.uid and not action.force:
            self._inventory.see(PODS, answer)
        _logger.info("pod deleted", namespace=namespace, pod=action.name, uid=action.uid, force=action.force)

    def forget(self, uid: str) -> None:
        """The job with this uid is gone."""
        self._refusals.pop(uid, None)

    def _manifest(self, job: TrainingJob, action: CreatePod) -> dict[str, Any]:
        try:
            manifest = self._builder(
                job, action.slot, action.excluded_nodes, images=self._images, control_plane=CONTROL_PLANE
            )
        except TemplateError as error:
            place = "spec." if str(error).startswith("checkpoint.") else "spec.template."
            raise RefusedError(f"{place}{error}") from error
        if action.excluded_nodes:
            metadata = manifest["metadata"]
            metadata["annotations"] = {
                **(metadata.get("annotations") or {}),
                EXCLUDED_ANNOTATION: ",".join(action.excluded_nodes),
            }
        return manifest

    async def _require_own(self, job: TrainingJob, name: str) -> None:
        """Raise unless the Pod of that name is this job's; it may be one that the watch has not told of yet."""
        try:
            found = await self._client.get(PODS, job.metadata.namespace, name)
        except NotFoundError as error:
            raise OSError(f"Pod {name} was there a moment ago and is gone; it is created anew") from error
        owner = owner_of(found.get("metadata") or {})
        if owner == job.metadata.uid:
            self._inventory.see(PODS, found)
        elif owner:
            raise OSError(f"Pod {name} is of an earlier job of this name; waiting until it is removed")
        else:
            raise RefusedError(f"Pod {name} is not this job's; remove it, or give the job another metadata.name")

    def _refused(self, job: TrainingJob, before: _Refusal | None, message: str) -> None:
        pause = FIRST_PAUSE_SECONDS
        if before is not None and before.generation == job.metadata.generation:
            pause = min(before.pause * 2, MAX_PAUSE_SECONDS)
        _logger.warning(
            "pod refused", namespace=job.metadata.namespace, job=job.metadata.name, detail=message, seconds=pause
        )
        self._refusals[job.metadata.uid] = _Refusal(message, job.metadata.generation, pause, self._clock() + pause)


class _Refusal:
    """Why the API server refused a job's Pods, and until when it is not asked again."""

    __slots__ = ("generation", "message", "pause", "until")

    def __init__(self, message: str, generation: int, pause: float, until: float) -> None:
        self.message = message
        self.generation = generation
        self.pause = pause
        self.until = until
