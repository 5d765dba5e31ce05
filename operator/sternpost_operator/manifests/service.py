"""The headless Service under which the Pods of a job find each other."""

from __future__ import annotations

from typing import Any

from sternpost_operator.manifests.owned import JOB_LABEL, owned_metadata
from sternpost_operator.resources import reserved
from sternpost_operator.resources.names import pod_name, service_name
from sternpost_operator.resources.training_job import TrainingJob


def build_service(job: TrainingJob) -> dict[str, Any]:
    """The Service `JOB-workers`. It lists Pods that are not ready, too: workers meet before they are."""
    ports = {"eagle-eye": reserved.EAGLE_EYE_PORT, "rendezvous": reserved.RENDEZVOUS_PORT}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owned_metadata(job, service_name(job.metadata.name)),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {JOB_LABEL: job.metadata.name},
            "ports": [
                {"name": name, "port": port, "targetPort": name, "protocol": "TCP"} for name, port in ports.items()
            ],
        },
    }


def pod_address(job: TrainingJob, slot: int) -> str:
    """Host name of the Pod of a slot, for whoever is in the same cluster."""
    name = job.metadata.name
    return f"{pod_name(name, slot)}.{service_name(name)}.{job.metadata.namespace}.svc"
