"""Everything that a job has beside its Pods, its Attempt and its Anomalies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sternpost_operator.manifests.access import (
    build_role,
    build_role_binding,
    build_service_account,
    own_account,
)
from sternpost_operator.manifests.network_policy import build_network_policy
from sternpost_operator.manifests.secret import build_secret
from sternpost_operator.manifests.service import build_service
from sternpost_operator.resources.training_job import TrainingJob


def owned_objects(
    job: TrainingJob, *, token: str, operator_namespace: str, metrics_namespaces: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """In the order in which they are made: the first Pod finds all of them. The keys of the ring are made apart.

    `token` must be the one that is stored, if there is one: running sidecars hold it. Raises `ValueError` for a weak one.
    """
    return [
        *([] if own_account(job) else [build_service_account(job)]),
        build_role(job),
        build_role_binding(job),
        build_secret(job, token),
        build_service(job),
        build_network_policy(job, operator_namespace=operator_namespace, metrics_namespaces=metrics_namespaces),
    ]
