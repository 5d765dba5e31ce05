"""Conditions that tell of what the cluster, or the operator, would not take. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sternpost_operator.cluster.base import InvalidJobError, RefusedError
from sternpost_operator.recovery.actions import Action, CreatePod
from sternpost_operator.recovery.conditions import put
from sternpost_operator.resources.training_job_status import TrainingJobStatus

ACCEPTED = "Accepted"
"""False while the operator cannot understand the job."""

PODS_ALLOWED = "PodsAllowed"
"""False while the API server refuses the job's Pods."""


def lifted(status: TrainingJobStatus, actions: Sequence[Action], now: datetime) -> TrainingJobStatus:
    """The status of a job that can be planned: what was refused before and is no more, is told so."""
    if _is_false(status, ACCEPTED):
        status = put(status, now, ACCEPTED, True, "Understood")
    if _is_false(status, PODS_ALLOWED) and not any(isinstance(action, CreatePod) for action in actions):
        status = put(status, now, PODS_ALLOWED, True, "Created")
    return status


def noted(status: TrainingJobStatus, error: RefusedError, now: datetime) -> TrainingJobStatus:
    """The status of a job whose Pods are refused. Its budget is not touched: nothing has run, and nothing has failed."""
    message = (
        f"The API server refuses the job's Pods: {error}. They are tried again, less and less often; "
        "change the quota or policy that refuses them, or delete the job and create it anew."
    )
    return put(status, now, PODS_ALLOWED, False, "Refused", message=message)


def invalid(status: TrainingJobStatus, error: InvalidJobError, now: datetime) -> TrainingJobStatus:
    """The status of a job that cannot be understood. Whatever of it runs is left alone."""
    message = f"{'; '.join(error.problems)}. Nothing is done with the job until this is changed."
    return put(status, now, ACCEPTED, False, "Invalid", message=message)


def _is_false(status: TrainingJobStatus, kind: str) -> bool:
    return any(each.type == kind and each.status == "False" for each in status.conditions)
