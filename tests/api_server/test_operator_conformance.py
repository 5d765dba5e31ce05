"""`KubernetesCluster` does what every cluster must, on a real API server."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator

import pytest
from bare_api import BareApi, bare_api
from cluster_conformance import ClusterConformance
from kubernetes.aio.client.configuration import Configuration
from kubernetes_stage import KubernetesStage
from prometheus_client import CollectorRegistry

from sternpost_operator.cluster.kubernetes.configuration import load_configuration
from sternpost_operator.metrics.operator_metrics import OperatorMetrics


@pytest.fixture(scope="module")
def api() -> Iterator[BareApi]:
    with bare_api() as made:
        yield made


@pytest.fixture
def stage(api: BareApi, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesStage]:
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig))
    configuration: Configuration = asyncio.run(load_configuration())
    namespace = f"conformance-{secrets.token_hex(3)}"
    api.kube.kubectl("create", "namespace", namespace)
    made = KubernetesStage(configuration, namespace, lambda: OperatorMetrics(CollectorRegistry()))
    yield made
    made.close()


class TestKubernetesCluster(ClusterConformance):
    """All of it."""
