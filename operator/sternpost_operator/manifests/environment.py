"""Environment variables of the containers in a worker Pod, as the contract names them."""

from __future__ import annotations

from typing import Any

from sternpost_operator.manifests import volumes
from sternpost_operator.resources import reserved
from sternpost_operator.resources.training_job import TrainingJob

EnvVar = dict[str, Any]


def variable(name: str, value: object) -> EnvVar:
    """A variable of a fixed value. No value of Sternpost's own holds a dollar sign, so Kubernetes expands nothing in it."""
    return {"name": name, "value": str(value)}


def _field(name: str, path: str) -> EnvVar:
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def common_environment(job: TrainingJob) -> list[EnvVar]:
    """What every container is told."""
    ranks = job.spec.ranks_per_worker
    return [
        variable("STERNPOST_JOB", job.metadata.name),
        variable("STERNPOST_JOB_UID", job.metadata.uid),
        variable("STERNPOST_NAMESPACE", job.metadata.namespace),
        _field("STERNPOST_POD", "metadata.name"),
        _field("STERNPOST_POD_UID", "metadata.uid"),
        _field("STERNPOST_NODE", "spec.nodeName"),
        variable("STERNPOST_CONTROL_DIR", volumes.CONTROL_PATH),
        variable("STERNPOST_SHM_DIR", volumes.SHM_PATH),
        *(variable(f"STERNPOST_PORT_METRICS_{rank}", reserved.METRICS_PORT + rank) for rank in range(ranks)),
        variable("STERNPOST_PORT_EAGLE_EYE", reserved.EAGLE_EYE_PORT),
        variable("STERNPOST_PORT_CHECKPOINT", reserved.CHECKPOINT_PORT),
        variable("STERNPOST_PORT_RENDEZVOUS", reserved.RENDEZVOUS_PORT),
        variable("STERNPOST_RANKS_PER_WORKER", ranks),
    ]


def grace_environment(job: TrainingJob) -> list[EnvVar]:
    """What the launcher and the sidecars are told in addition."""
    return [variable("STERNPOST_GRACE_SECONDS", f"{job.spec.recovery.grace_seconds:g}")]
