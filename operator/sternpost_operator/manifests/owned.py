"""Metadata of the objects that belong to a job."""

from __future__ import annotations

from typing import Any

from sternpost_operator.resources.training_job import TrainingJob

JOB_LABEL = "sternpost.dev/job"
SLOT_LABEL = "sternpost.dev/slot"
MANAGED_LABEL = "app.kubernetes.io/managed-by"
EXCLUDED_ANNOTATION = "sternpost.dev/excluded-nodes"
"""On a Pod: names of the nodes that it was created to avoid, apart from what its template says itself."""


def owned_labels(job: TrainingJob) -> dict[str, str]:
    """Labels of everything that belongs to the job."""
    return {MANAGED_LABEL: "sternpost", JOB_LABEL: job.metadata.name}


def owned_metadata(job: TrainingJob, name: str) -> dict[str, Any]:
    """Name, namespace, labels, and the job as owner: Kubernetes deletes the object after the job."""
    return {
        "name": name,
        "namespace": job.metadata.namespace,
        "labels": owned_labels(job),
        "ownerReferences": [
            {
                "apiVersion": job.api_version,
                "kind": job.kind,
                "name": job.metadata.name,
                "uid": job.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
