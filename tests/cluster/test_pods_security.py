"""Pods in a namespace with the Pod Security Standard "restricted", and trainers that are another user than their sidecars."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from cluster_job import ClusterJob
from harness.commands import CommandError
from kube import Kube, Object

from sternpost_operator.manifests.images import Images
from sternpost_operator.manifests.worker_pod import build_pod
from sternpost_operator.resources.training_job import TrainingJob


def pod_of(namespace: str, **template: Any) -> Object:
    """A worker Pod as the operator would create it, without checkpoints."""
    container = {"name": "trainer", "image": "example/trainer:1", "command": ["true"]}
    job = TrainingJob.model_validate(
        {
            "metadata": {"name": "job", "namespace": namespace, "uid": "0"},
            "spec": {"workers": 1, "template": {"spec": {"containers": [container], **template}}},
        }
    )
    pod = build_pod(job, 0, ["node-x"], images=Images.of_version("1"))
    del pod["metadata"]["ownerReferences"]
    pod["spec"]["serviceAccountName"] = "default"
    return pod


@pytest.fixture
def restricted(kube: Kube, namespace: str) -> str:
    """A namespace that enforces it."""
    level = "pod-security.kubernetes.io/enforce=restricted"
    kube.kubectl("label", "namespace", namespace, level)
    kube.wait_for(*("serviceaccount", "default", lambda _: True, "there"), namespace=namespace, seconds=60)
    return namespace


def test_a_template_that_names_a_user_is_admitted(kube: Kube, restricted: str) -> None:
    def create(pod: Object) -> None:
        kube.kubectl(
            *("create", "--dry-run=server", "--validate=strict", "-f", "-"), namespace=restricted, stdin=json.dumps(pod)
        )

    create(pod_of(restricted, securityContext={"runAsUser": 1000}))
    create(pod_of(restricted, securityContext={"runAsNonRoot": True}))
    # One that sets nothing keeps its image's user, and that is all that is wrong with it.
    with pytest.raises(CommandError) as caught:
        create(pod_of(restricted))
    said = str(caught.value.output)
    assert 'runAsNonRoot != true (pod or container "trainer" must set' in said
    for other in (
        "allowPrivilegeEscalation",
        "unrestricted capabilities",
        "seccompProfile",
        "volume types",
        "sternpost-",
    ):
        assert other not in said, said


def test_a_trainer_that_is_root_shares_memory_with_sidecars_that_are_not(
    job: ClusterJob, kube: Kube, local_hash: Callable[..., str]
) -> None:
    manifest = copy.deepcopy(job.manifest())
    pod = manifest["spec"]["template"]["spec"]
    pod.pop("securityContext", None)
    for container in pod["containers"]:
        container["securityContext"] = {"runAsUser": 0}
    kube.apply(manifest, namespace=job.namespace)
    done = job.wait_succeeded()
    conditions = {each["type"]: each["status"] for each in done["status"]["conditions"]}
    assert conditions.get("CheckpointsFailing", "False") == "False"
    assert job.final_hash() == local_hash(job.workers, job.steps)
