"""What a node's own conditions say: the job leaves it, everybody is kept off it, and later it is given back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from chart_release import install
from cluster_job import ClusterJob
from harness.faults import Faults
from harness.images import TRAINER_IMAGE
from harness.report import say
from kube import Kube, Object, condition_of
from node_tests import CONDITION, exclusion_values, is_cordoned, is_tainted, worker_on

Permit = Callable[..., None]


@pytest.fixture(scope="module")
def permit(kube: Kube, chart: str) -> Iterator[Permit]:
    """Let the operator cordon, and drain if asked to; as it was before once the module is through."""
    yield lambda *, drain: install(kube, more=exclusion_values(drain=drain))
    install(kube)


@pytest.fixture
def well(kube: Kube, faults: Faults) -> Iterator[None]:
    """Whatever a test made of the nodes is undone."""
    yield
    for node in kube.items("nodes"):
        name = node["metadata"]["name"]
        if condition_of(node, CONDITION) is not None:
            faults.clear_condition(name, CONDITION)
        kube.kubectl("uncordon", name)


def break_node(job: ClusterJob, faults: Faults) -> str:
    """The node of worker 1 says that its hardware is bad."""
    _, node = worker_on(job, 1)
    say(f"{node} says {CONDITION}=True")
    faults.set_condition(node, CONDITION, "True", "Xid79", "the GPU has fallen off the bus")
    return node


@pytest.mark.usefixtures("well")
def test_a_node_whose_condition_says_so_is_cordoned_and_given_back(
    job: ClusterJob, faults: Faults, kube: Kube, permit: Permit, local_hash: Callable[..., str]
) -> None:
    permit(drain=False)
    job.apply()
    job.wait_step(10)
    node = break_node(job, faults)
    job.wait_phase("Recovering", "Starting")
    job.wait_phase("Running")
    assert node not in job.nodes().values()
    cordoned = kube.wait_for("node", node, lambda each: is_cordoned(each) and is_tainted(each), "cordoned", seconds=30)
    assert "Xid79" in cordoned["metadata"]["annotations"]["sternpost.dev/cordon-reason"]
    assert _events(kube, node) == ["SternpostCordoned"]
    others = [each for each in kube.items("nodes") if each["metadata"]["name"] != node]
    assert not any(is_cordoned(each) or is_tainted(each) for each in others)
    done = job.wait_succeeded()
    [record] = done["status"]["attempts"]
    assert (record["cause"], record["node"]) == ("NodeUnhealthy", node)
    assert [each["node"] for each in done["status"]["excludedNodes"] if each["proven"]] == [node]
    assert job.final_hash() == local_hash(job.workers, job.steps)
    # The job is over, and still the evidence stands.
    assert is_cordoned(_node(kube, node))
    faults.set_condition(node, CONDITION, "False", "Repaired", "")
    given_back = kube.wait_for("node", node, lambda each: not is_cordoned(each), "given back", seconds=60)
    assert not is_tainted(given_back)
    assert not [name for name in given_back["metadata"]["annotations"] if name.startswith("sternpost.dev/")]


@pytest.mark.usefixtures("well")
def test_a_drain_that_a_budget_blocks_is_told_and_goes_on_when_it_may(
    job: ClusterJob, faults: Faults, kube: Kube, permit: Permit
) -> None:
    permit(drain=True)
    job.steps = 600
    job.apply()
    job.wait_step(5)
    _, node = worker_on(job, 1)
    kube.apply(*_guarded(node), namespace=job.namespace)
    kube.kubectl("rollout", "status", "deployment/web", "--timeout=90s", namespace=job.namespace, timeout=120)
    [web] = kube.items("pods", job.namespace, "--selector=app=web")
    break_node(job, faults)
    blocked = job.wait_condition("NodeDrained", "False", seconds=120)
    message = condition_of(blocked, "NodeDrained")["message"]  # type: ignore[index]
    assert f"{job.namespace}/{web['metadata']['name']}" in message, message
    assert "disruption budget" in message, message
    assert "SternpostDrainBlocked" in _events(kube, node)
    assert _uids(kube, job.namespace) == {web["metadata"]["uid"]}, "the budget was not respected"
    kube.kubectl("delete", "pdb", "web", namespace=job.namespace)
    job.wait_condition("NodeDrained", "True", seconds=120)
    assert web["metadata"]["uid"] not in _uids(kube, job.namespace)


def _node(kube: Kube, name: str) -> Object:
    found = kube.get("node", name)
    assert found is not None
    return found


def _events(kube: Kube, node: str) -> list[str]:
    uid = _node(kube, node)["metadata"]["uid"]
    found = kube.items("events", "default", "--field-selector", f"involvedObject.uid={uid}")
    return [each["reason"] for each in found if each["reason"].startswith("Sternpost")]


def _uids(kube: Kube, namespace: str) -> set[str]:
    pods = kube.items("pods", namespace, "--selector=app=web", "--field-selector=status.phase=Running")
    return {pod["metadata"]["uid"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}


def _guarded(node: str) -> list[Object]:
    """Somebody else's service on the node, of which not even one Pod may be missing."""
    labels = {"app": "web"}
    affinity: dict[str, Any] = {
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 100,
                    "preference": {
                        "matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]
                    },
                }
            ]
        }
    }
    container = {
        "name": "web",
        "image": TRAINER_IMAGE,
        "imagePullPolicy": "Never",
        "command": ["python3", "-c", "import signal; signal.sigwait([signal.SIGTERM])"],
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "allowPrivilegeEscalation": False},
    }
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [container], "affinity": affinity, "terminationGracePeriodSeconds": 5},
                },
            },
        },
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "web"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": labels}},
        },
    ]
