"""The account as which a job's eagle-eye sidecars speak to the API server, and what it may do."""

from __future__ import annotations

from typing import Any

from sternpost_operator.manifests.owned import owned_metadata
from sternpost_operator.resources.base import GROUP
from sternpost_operator.resources.names import service_account_name
from sternpost_operator.resources.training_job import TrainingJob

REPORT_VERB = "report"
"""Held for a job's name on anomalies, it lets an account report on that job; the admission policy asks for it."""


def own_account(job: TrainingJob) -> str | None:
    """The account that the template names, by the old name of the field, too; None where it names none."""
    spec = job.spec.template["spec"]
    return spec.get("serviceAccountName") or spec.get("serviceAccount") or None


def build_service_account(job: TrainingJob) -> dict[str, Any]:
    """The account `JOB-sidecar`; a template that names another account uses that."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": owned_metadata(job, service_account_name(job.metadata.name)),
        "automountServiceAccountToken": False,
    }


def build_role(job: TrainingJob) -> dict[str, Any]:
    """Read the one Attempt of this job; write Anomalies, and speak for this job alone in them.

    RBAC cannot limit what is created by its content: `create` holds for every anomaly in the namespace. The admission
    policy `sternpost-anomalies` lets through only those of jobs that the account may `report` on.
    """
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": owned_metadata(job, service_account_name(job.metadata.name)),
        "rules": [
            {
                "apiGroups": [GROUP],
                "resources": ["attempts"],
                "resourceNames": [job.metadata.name],
                "verbs": ["get", "list", "watch"],
            },
            {"apiGroups": [GROUP], "resources": ["anomalies"], "verbs": ["create", "get", "patch"]},
            {
                "apiGroups": [GROUP],
                "resources": ["anomalies"],
                "resourceNames": [job.metadata.name],
                "verbs": [REPORT_VERB],
            },
        ],
    }


def build_role_binding(job: TrainingJob) -> dict[str, Any]:
    """Give the role to the account that the job's Pods run as."""
    name = service_account_name(job.metadata.name)
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": owned_metadata(job, name),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": own_account(job) or name, "namespace": job.metadata.namespace}],
    }
