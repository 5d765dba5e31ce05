"""The Pod of a slot: the job's template, and around its trainer the launcher and the sidecars."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from sternpost_operator.manifests import volumes
from sternpost_operator.manifests.access import own_account
from sternpost_operator.manifests.affinity import merge_affinity
from sternpost_operator.manifests.environment import common_environment, grace_environment
from sternpost_operator.manifests.images import Images
from sternpost_operator.manifests.owned import EXCLUDED_ANNOTATION, MANAGED_LABEL, SLOT_LABEL, owned_metadata
from sternpost_operator.manifests.security import Identity, pod_context, trainer_context
from sternpost_operator.manifests.sidecars import (
    LAUNCHER_FILE,
    checkpoint_container,
    eagle_eye_container,
    is_kubernetes,
    launcher_container,
    storage_folder,
    storage_mounts,
)
from sternpost_operator.resources import reserved
from sternpost_operator.resources.names import pod_name, service_account_name, service_name
from sternpost_operator.resources.template import TemplateError, require_template
from sternpost_operator.resources.termination import termination_seconds
from sternpost_operator.resources.training_job import TRAINER_CONTAINER, TrainingJob

Pod = dict[str, Any]


def build_pod(
    job: TrainingJob,
    slot: int,
    excluded_nodes: Iterable[str] = (),
    *,
    images: Images,
    control_plane: str = "kubernetes:",
) -> Pod:
    """The manifest of the Pod `JOB-SLOT`, the same for the same arguments.

    Everything in the template is kept. `control_plane` is what eagle-eye is told: `kubernetes:` or the `file://` URI of a
    local one. Raises `TemplateError` when the template takes what Sternpost needs, `ValueError` for a slot that the
    job does not have.
    """
    spec = job.spec
    if not 0 <= slot < spec.max_workers + spec.spares:
        raise ValueError(f"job {job.metadata.name} has slots 0 to {spec.max_workers + spec.spares - 1}, not {slot}")
    require_template(
        spec.template,
        ranks_per_worker=spec.ranks_per_worker,
        shared_memory=spec.checkpoint.shared_memory if spec.checkpoint else None,
        grace_seconds=spec.recovery.grace_seconds,
    )
    template = copy.deepcopy(spec.template)
    excluded = sorted(set(excluded_nodes))
    if is_kubernetes(control_plane):
        _require_storage(job, _trainer(template["spec"]))
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _metadata(job, slot, template.get("metadata") or {}, excluded),
        "spec": {
            **_pod_spec(job, template["spec"], images, control_plane),
            "hostname": pod_name(job.metadata.name, slot),
            "subdomain": service_name(job.metadata.name),
            "affinity": merge_affinity(template["spec"].get("affinity"), job.metadata.name, excluded),
        },
    }


def _trainer(pod_spec: Mapping[str, Any]) -> dict[str, Any]:
    return next(item for item in pod_spec["containers"] if item["name"] == TRAINER_CONTAINER)


def _require_storage(job: TrainingJob, trainer: Mapping[str, Any]) -> None:
    storage = job.spec.checkpoint.storage if job.spec.checkpoint else ""
    if not storage.startswith("file:"):
        return
    if not storage_folder(storage).startswith("/"):
        raise TemplateError(
            f"checkpoint.storage: {storage} is relative; on Kubernetes give an absolute path (file:///...)"
        )
    if not storage_mounts(storage, trainer):
        raise TemplateError(
            f"checkpoint.storage: {storage} is on no volume of the container {TRAINER_CONTAINER}, and would be lost with"
            " the Pod; mount a shared volume there, or use s3://, gs:// or az://"
        )


def _metadata(job: TrainingJob, slot: int, template: Mapping[str, Any], excluded: list[str]) -> dict[str, Any]:
    metadata = owned_metadata(job, pod_name(job.metadata.name, slot))
    given = template.get("labels") or {}
    # No selector of Sternpost's looks at who manages a Pod, so the template may say something else.
    managed = {MANAGED_LABEL: given[MANAGED_LABEL]} if MANAGED_LABEL in given else {}
    metadata["labels"] = {**given, **metadata["labels"], **managed, SLOT_LABEL: str(slot)}
    annotations = dict(template.get("annotations") or {})
    if excluded:
        annotations[EXCLUDED_ANNOTATION] = ",".join(excluded)
    if annotations:
        metadata["annotations"] = annotations
    return metadata


def _pod_spec(job: TrainingJob, template: dict[str, Any], images: Images, control_plane: str) -> dict[str, Any]:
    trainer = _trainer(template)
    recovery = job.spec.recovery
    identity = Identity.of(template, trainer)
    # Ours come first: while the template's own init containers load data, eagle-eye already answers.
    init = [launcher_container(job, images, identity), eagle_eye_container(job, images, identity, control_plane)]
    if job.spec.checkpoint:
        kubernetes = is_kubernetes(control_plane)
        init.append(checkpoint_container(job, images, identity, trainer, kubernetes=kubernetes))
    containers = [wrap_trainer(job, item) if item is trainer else item for item in template["containers"]]
    pod_spec = {
        **template,
        "restartPolicy": "OnFailure",
        "securityContext": pod_context(template, identity),
        "terminationGracePeriodSeconds": max(
            termination_seconds(recovery.grace_seconds, checkpoints=job.spec.checkpoint is not None),
            template.get("terminationGracePeriodSeconds") or 0,
        ),
        "initContainers": [*init, *(template.get("initContainers") or [])],
        "containers": containers,
        # The template's own first, here and below: what the API server says of volumes[0] is about the template's.
        "volumes": [
            *(template.get("volumes") or []),
            *volumes.build_volumes(job, kubernetes=is_kubernetes(control_plane)),
        ],
    }
    if is_kubernetes(control_plane):
        # The account is for eagle-eye, which mounts its token itself; a trainer that needs it asks for it.
        pod_spec["serviceAccountName"] = own_account(job) or service_account_name(job.metadata.name)
        pod_spec.setdefault("automountServiceAccountToken", False)
    return pod_spec


def wrap_trainer(job: TrainingJob, trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The trainer's container, its command started by the launcher. `args` stay where they are: Kubernetes appends them."""
    ranks = job.spec.ranks_per_worker
    ports = [
        *(
            {"name": f"metrics-{rank}", "containerPort": reserved.METRICS_PORT + rank, "protocol": "TCP"}
            for rank in range(ranks)
        ),
        {"name": "rendezvous", "containerPort": reserved.RENDEZVOUS_PORT, "protocol": "TCP"},
    ]
    return {
        **trainer,
        "command": ["python3", LAUNCHER_FILE, "--", *trainer["command"]],
        # First, so that the template's own variables can refer to them as $(NAME).
        "env": [*common_environment(job), *grace_environment(job), *(trainer.get("env") or [])],
        "ports": [*(trainer.get("ports") or []), *ports],
        "securityContext": trainer_context(job.spec.template["spec"], trainer),
        "volumeMounts": [
            *(trainer.get("volumeMounts") or []),
            volumes.mount(volumes.BIN, volumes.BIN_PATH, read_only=True),
            volumes.mount(volumes.CONTROL, volumes.CONTROL_PATH),
            volumes.mount(volumes.SHM, volumes.SHM_PATH),
        ],
    }
