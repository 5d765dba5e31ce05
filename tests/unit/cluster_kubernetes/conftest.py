from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sternpost_operator.resources.training_job import TrainingJob

Object = dict[str, Any]


@pytest.fixture
def job_manifest() -> Callable[..., Object]:
    """A TrainingJob as the API server stores it."""

    def build(name: str = "gpt", **spec: Any) -> Object:
        trainer = {"name": "trainer", "image": "train:1", "command": ["python3", "train.py"]}
        return {
            "apiVersion": "sternpost.dev/v1alpha1",
            "kind": "TrainingJob",
            "metadata": {
                "name": name,
                "namespace": "team",
                "uid": f"uid-of-{name}",
                "resourceVersion": "7",
                "generation": 1,
                "managedFields": [{"manager": "kubectl"}],
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "sternpost.dev/x": "y"},
            },
            "spec": {"workers": 2, "template": {"spec": {"containers": [trainer]}}, **spec},
        }

    return build


@pytest.fixture
def job(job_manifest: Callable[..., Object]) -> TrainingJob:
    return TrainingJob.model_validate(job_manifest())


@pytest.fixture
def pod_manifest() -> Callable[..., Object]:
    """A worker's Pod; fields of the status may be replaced."""

    def build(name: str = "gpt-0", *, version: int = 1, node: str | None = "node-1", **status: Any) -> Object:
        running = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
        owner = {"apiVersion": "sternpost.dev/v1alpha1", "kind": "TrainingJob", "name": "gpt", "uid": "uid-of-gpt"}
        return {
            "metadata": {
                "name": name,
                "namespace": "team",
                "uid": f"uid-of-{name}",
                "resourceVersion": str(version),
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"sternpost.dev/job": "gpt", "sternpost.dev/slot": name.rpartition("-")[2]},
                "ownerReferences": [owner],
            },
            "spec": {
                "initContainers": [
                    {"name": "sternpost-launcher"},
                    {"name": "sternpost-eagle-eye", "ports": [{"name": "eagle-eye", "containerPort": 9470}]},
                ],
                "containers": [{"name": "trainer"}],
                **({"nodeName": node} if node else {}),
            },
            "status": {
                "phase": "Running",
                "podIP": "10.0.0.7",
                "containerStatuses": [{"name": "trainer", "restartCount": 1, "state": running}],
                "initContainerStatuses": [{"name": "sternpost-eagle-eye", "ready": True}],
                **status,
            },
        }

    return build
