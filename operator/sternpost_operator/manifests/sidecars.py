"""The containers that Sternpost adds to a worker Pod."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from sternpost_operator.manifests import volumes
from sternpost_operator.manifests.environment import common_environment, grace_environment, variable
from sternpost_operator.manifests.images import Images
from sternpost_operator.manifests.ring_secret import has_ring
from sternpost_operator.manifests.security import Identity, sidecar_context
from sternpost_operator.resources import reserved
from sternpost_operator.resources.base import Model
from sternpost_operator.resources.mount_paths import is_below
from sternpost_operator.resources.quantity import parse_bytes
from sternpost_operator.resources.training_job import CheckpointPolicy, TrainingJob

Container = dict[str, Any]

LAUNCHER_CONTAINER = "sternpost-launcher"
EAGLE_EYE_CONTAINER = "sternpost-eagle-eye"
CHECKPOINT_CONTAINER = "sternpost-checkpoint"
LAUNCHER_FILE = f"{volumes.BIN_PATH}/launcher.pyz"

_CREDENTIAL_PREFIXES = ("AWS_", "AZURE_", "GOOGLE_")
"""Variables of the trainer that the checkpoint sidecar gets as well: both speak to the same store."""


def launcher_container(job: TrainingJob, images: Images, identity: Identity) -> Container:
    """Init container that copies the launcher to where the trainer finds it."""
    return {
        "name": LAUNCHER_CONTAINER,
        "image": images.launcher,
        "imagePullPolicy": images.pull_policy,
        "command": ["python3", "-m", "sternpost_launcher", "install", LAUNCHER_FILE],
        "env": common_environment(job),
        "resources": _resources(cpu="10m", memory="32Mi", limit="128Mi"),
        "securityContext": sidecar_context(identity),
        "volumeMounts": [volumes.mount(volumes.BIN, volumes.BIN_PATH)],
    }


def eagle_eye_container(job: TrainingJob, images: Images, identity: Identity, control_plane: str) -> Container:
    """Native sidecar that watches the trainer and hands the attempt to the launcher."""
    mounts = [
        volumes.mount(volumes.CONTROL, volumes.CONTROL_PATH),
        volumes.mount(volumes.SHM, volumes.SHM_PATH),
        volumes.mount(volumes.TOKEN, volumes.TOKEN_PATH, read_only=True),
    ]
    if is_kubernetes(control_plane):
        mounts.append(volumes.mount(volumes.CONTROL_PLANE, volumes.SERVICE_ACCOUNT_PATH, read_only=True))
    return {
        "name": EAGLE_EYE_CONTAINER,
        "image": images.eagle_eye,
        "imagePullPolicy": images.pull_policy,
        "restartPolicy": "Always",
        "command": ["python3", "-m", "sternpost_eagle_eye", "sidecar"],
        "env": [
            *common_environment(job),
            *grace_environment(job),
            variable("STERNPOST_CONTROL_PLANE", control_plane),
            variable("STERNPOST_TOKEN_FILE", f"{volumes.TOKEN_PATH}/{volumes.TOKEN_KEY}"),
            variable("STERNPOST_EAGLE_EYE", _json(job.spec.eagle_eye)),
        ],
        "ports": [{"name": "eagle-eye", "containerPort": reserved.EAGLE_EYE_PORT, "protocol": "TCP"}],
        "readinessProbe": _healthz(period=5, failures=3),
        # Slow to kill: a machine under full load is what it is there to report.
        "livenessProbe": _healthz(period=20, failures=6),
        "resources": _resources(cpu="50m", memory="96Mi", limit="512Mi"),
        "securityContext": sidecar_context(identity),
        "volumeMounts": mounts,
    }


def checkpoint_container(
    job: TrainingJob, images: Images, identity: Identity, trainer: Mapping[str, Any], *, kubernetes: bool
) -> Container:
    """Native sidecar that compresses and stores checkpoints; needs `spec.checkpoint`. `kubernetes`: with a /tmp of its own.

    Without a liveness probe: to kill it while it writes costs a checkpoint, and a trainer goes on without it.
    """
    policy = job.spec.checkpoint
    if policy is None:
        raise ValueError(f"job {job.metadata.name} has no spec.checkpoint, and so no checkpoint sidecar")
    own = [*common_environment(job), *grace_environment(job), variable("STERNPOST_CHECKPOINT", _json(policy))]
    ports = {"checkpoint": reserved.CHECKPOINT_PORT}
    mounts = [
        volumes.mount(volumes.CONTROL, volumes.CONTROL_PATH),
        volumes.mount(volumes.SHM, volumes.SHM_PATH),
    ]
    if has_ring(job):
        own.append(variable("STERNPOST_PORT_RING", reserved.RING_PORT))
        own.append(variable("STERNPOST_RING_KEYS", volumes.RING_PATH))
        ports["ring"] = reserved.RING_PORT
        mounts.append(volumes.mount(volumes.RING, volumes.RING_PATH, read_only=True))
    if kubernetes:
        mounts.append(volumes.mount(volumes.SCRATCH, volumes.SCRATCH_PATH))
    container: Container = {
        "name": CHECKPOINT_CONTAINER,
        "image": images.checkpoint,
        "imagePullPolicy": images.pull_policy,
        "restartPolicy": "Always",
        "command": ["python3", "-m", "sternpost_checkpoint", "sidecar"],
        "env": [*own, *_credentials(trainer)],
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in ports.items()],
        "resources": _resources(cpu="100m", memory="256Mi", limit=_checkpoint_limit(policy)),
        "securityContext": sidecar_context(identity),
        "volumeMounts": [*mounts, *storage_mounts(policy.storage, trainer)],
    }
    if trainer.get("envFrom") and not policy.storage.startswith("file:"):
        container["envFrom"] = trainer["envFrom"]
    return container


def is_kubernetes(control_plane: str) -> bool:
    """Whether the control plane is the API server of the cluster that the Pod runs in."""
    return control_plane == "kubernetes:"


def storage_mounts(storage: str, trainer: Mapping[str, Any]) -> list[volumes.Mount]:
    """The trainer's mounts that the checkpoint sidecar needs as well: of the storage folder, and of credential files."""
    wanted = [entry["value"] for entry in _credentials(trainer) if str(entry.get("value", "")).startswith("/")]
    if storage.startswith("file:"):
        wanted = [storage_folder(storage)]
    return [
        entry
        for entry in trainer.get("volumeMounts") or []
        if any(is_below(path, entry["mountPath"]) for path in wanted)
    ]


def storage_folder(storage: str) -> str:
    """The folder of a `file://` URI; a relative one (`file://./folder`) stays relative."""
    parts = urlsplit(storage)
    return parts.netloc + parts.path


def _credentials(trainer: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [entry for entry in trainer.get("env") or [] if entry["name"].startswith(_CREDENTIAL_PREFIXES)]


def _healthz(*, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": "/healthz", "port": "eagle-eye"},
        "timeoutSeconds": 5,
        "periodSeconds": period,
        "failureThreshold": failures,
    }


def _json(policy: Model) -> str:
    return json.dumps(policy.to_wire(), separators=(",", ":"), sort_keys=True)


def _checkpoint_limit(policy: CheckpointPolicy) -> str:
    # Pages of the memory volume count towards whoever touches them first, and a shard is compressed in memory.
    shared = parse_bytes(policy.shared_memory)
    peers = parse_bytes(policy.peer_memory or policy.shared_memory) if policy.peer_replication else 0
    return f"{1024 + -(-(2 * shared + peers) // 2**20)}Mi"


def _resources(*, cpu: str, memory: str, limit: str) -> dict[str, Any]:
    # No CPU limit: throttled, a sidecar would report the trainer as slow.
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": limit}}
