"""Who may connect to a job's workers. Declared; whether it is enforced is the business of the cluster's network plugin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sternpost_operator.manifests.owned import JOB_LABEL, owned_metadata
from sternpost_operator.resources import reserved
from sternpost_operator.resources.names import network_policy_name
from sternpost_operator.resources.training_job import TrainingJob

NAMESPACE_LABEL = "kubernetes.io/metadata.name"
"""Kubernetes sets it on every namespace."""


def build_network_policy(
    job: TrainingJob, *, operator_namespace: str, metrics_namespaces: Sequence[str] = ()
) -> dict[str, Any]:
    """Workers reach each other on all ports; the operator reaches eagle-eye; Prometheus reaches the metrics pages.

    The ring's port is for the job's own workers alone.

    `metrics_namespaces` are those that Prometheus may be in; none means any. What leaves a worker is not restricted:
    trainers read data sets and write checkpoints wherever those are. Whoever wants a port of the trainer's own to be reached from
    elsewhere adds a NetworkPolicy, for they add up.
    """
    own = {"podSelector": {"matchLabels": {JOB_LABEL: job.metadata.name}}}
    pages = [
        *range(reserved.METRICS_PORT, reserved.METRICS_PORT + job.spec.ranks_per_worker),
        reserved.EAGLE_EYE_PORT,
        reserved.CHECKPOINT_PORT,
    ]
    scrapers = [_namespace(name) for name in sorted(set(metrics_namespaces))] or [{"namespaceSelector": {}}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": owned_metadata(job, network_policy_name(job.metadata.name)),
        "spec": {
            **own,
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [own]},
                {"from": [_namespace(operator_namespace)], "ports": _ports(pages)},
                {"from": scrapers, "ports": _ports(pages)},
            ],
        },
    }


def _namespace(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: name}}}


def _ports(ports: Sequence[int]) -> list[dict[str, Any]]:
    return [{"protocol": "TCP", "port": port} for port in ports]
