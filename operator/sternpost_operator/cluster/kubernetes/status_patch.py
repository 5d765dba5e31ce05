"""Says in the status of a job what is wrong with it, also where the status itself cannot be understood."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import ValidationError

from sternpost_operator import refusals
from sternpost_operator.cluster.base import InvalidJobError
from sternpost_operator.cluster.kubernetes.cluster import KubernetesCluster
from sternpost_operator.cluster.kubernetes.entries import JobEntry
from sternpost_operator.cluster.kubernetes.paths import TRAINING_JOBS
from sternpost_operator.resources.training_job_status import Condition, TrainingJobStatus


async def note_invalid(
    cluster: KubernetesCluster, entry: JobEntry, error: InvalidJobError, now: datetime
) -> tuple[TrainingJobStatus, TrainingJobStatus]:
    """Write the condition, unless it stands there already; the status before and after. Raises `OSError`."""
    before = _status(entry.manifest.get("status"))
    after = refusals.invalid(before, error, now)
    if after == before:
        return before, after
    patch = {
        "metadata": {"uid": entry.uid, "resourceVersion": str(entry.version)},
        "status": {
            "conditions": [condition.to_wire() for condition in after.conditions],
            "observedGeneration": entry.generation,
        },
    }
    stored = await cluster.client.merge(TRAINING_JOBS, entry.namespace, entry.name, patch, subresource="status")
    cluster.inventory.see(TRAINING_JOBS, stored)
    return before, after


def _status(value: Any) -> TrainingJobStatus:
    """What can be understood of a status: all of it, or its conditions."""
    try:
        return TrainingJobStatus.model_validate(value or {})
    except ValidationError:
        pass
    conditions = []
    for item in value.get("conditions") or [] if isinstance(value, dict) else []:
        try:
            conditions.append(Condition.model_validate(item))
        except ValidationError:
            continue
    return TrainingJobStatus(conditions=conditions)
