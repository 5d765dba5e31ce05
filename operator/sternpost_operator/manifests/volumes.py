"""The volumes that the containers of a worker Pod share."""

from __future__ import annotations

from typing import Any

from sternpost_operator.manifests.ring_secret import RING_KEYS, has_ring
from sternpost_operator.resources.names import ring_secret_name, secret_name
from sternpost_operator.resources.reserved import ROOT_PATH
from sternpost_operator.resources.training_job import TrainingJob

Volume = dict[str, Any]
Mount = dict[str, Any]

BIN = "sternpost-bin"
CONTROL = "sternpost-control"
SHM = "sternpost-shm"
TOKEN = "sternpost-token"  # noqa: S105 - a volume's name
RING = "sternpost-ring"
SCRATCH = "sternpost-scratch"
CONTROL_PLANE = "sternpost-control-plane"

BIN_PATH = f"{ROOT_PATH}/bin"
CONTROL_PATH = f"{ROOT_PATH}/control"
SHM_PATH = f"{ROOT_PATH}/shm"
TOKEN_PATH = f"{ROOT_PATH}/token"
RING_PATH = f"{ROOT_PATH}/ring"
SCRATCH_PATH = "/tmp"  # noqa: S108 -- an empty folder of the checkpoint sidecar's own
SCRATCH_SIZE = "64Mi"
TOKEN_KEY = "token"  # noqa: S105 - the key in the Secret
SERVICE_ACCOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where every Kubernetes client looks."""

SHM_WITHOUT_CHECKPOINTS = "64Mi"
"""Enough for a trainer that uses the folder for small things of its own."""

# The sidecars are no root and the trainer may be anybody. Only the containers that mount a volume can see its files.
_READABLE = 0o444
_TOKEN_LIFETIME_SECONDS = 3600


def build_volumes(job: TrainingJob, *, kubernetes: bool) -> list[Volume]:
    """All volumes that Sternpost adds; with `kubernetes`, also the account with which eagle-eye speaks to the API server."""
    checkpoint = job.spec.checkpoint
    built: list[Volume] = [
        {"name": BIN, "emptyDir": {}},
        {"name": CONTROL, "emptyDir": {}},
        {
            "name": SHM,
            "emptyDir": {
                "medium": "Memory",
                "sizeLimit": checkpoint.shared_memory if checkpoint else SHM_WITHOUT_CHECKPOINTS,
            },
        },
        {
            "name": TOKEN,
            "secret": {
                "secretName": secret_name(job.metadata.name),
                "defaultMode": _READABLE,
                "items": [{"key": TOKEN_KEY, "path": TOKEN_KEY}],
            },
        },
    ]
    if has_ring(job):
        built.append(_ring_volume(job))
    if kubernetes:
        built.append(_service_account_volume())
    if kubernetes and checkpoint is not None:
        # Compiled kernels: never where a trainer could put other code in their place.
        built.append({"name": SCRATCH, "emptyDir": {"sizeLimit": SCRATCH_SIZE}})
    return built


def _ring_volume(job: TrainingJob) -> Volume:
    # For the checkpoint sidecar alone: a trainer that could read it could pose as any worker of its job.
    return {
        "name": RING,
        "secret": {
            "secretName": ring_secret_name(job.metadata.name),
            "defaultMode": _READABLE,
            "items": [{"key": key, "path": key} for key in RING_KEYS],
        },
    }


def _service_account_volume() -> Volume:
    # As Kubernetes itself mounts it into every container; here it is in eagle-eye's alone.
    return {
        "name": CONTROL_PLANE,
        "projected": {
            "defaultMode": _READABLE,
            "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": _TOKEN_LIFETIME_SECONDS}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {
                    "downwardAPI": {
                        "items": [
                            {
                                "path": "namespace",
                                "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                            }
                        ]
                    }
                },
            ],
        },
    }


def mount(name: str, path: str, *, read_only: bool = False) -> Mount:
    """A volume at a path."""
    return {"name": name, "mountPath": path, **({"readOnly": True} if read_only else {})}
