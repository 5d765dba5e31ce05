"""The ends of a job that are not its success: deleted, its namespace deleted, suspended and resumed."""

from __future__ import annotations

from collections.abc import Callable

from chart_release import SYSTEM
from cluster_job import IDLE, ClusterJob, random_step
from kube import Kube
from operator_view import operator_pods, restarts_of

EPHEMERAL = {"events", "events.events.k8s.io", "pods.metrics.k8s.io", "endpointslices.discovery.k8s.io", "endpoints"}
"""What Kubernetes itself removes in its own time."""
EVERY_NAMESPACE = {"serviceaccount/default", "configmap/kube-root-ca.crt"}
DELETE_SECONDS = 90


def everything(kube: Kube, namespace: str) -> set[str]:
    """All objects of a namespace, of whatever kind."""
    kinds = kube.kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
    asked = ",".join(kind for kind in kinds if kind not in EPHEMERAL)
    return set(kube.kubectl("get", asked, "-o", "name", namespace=namespace).split())


def test_a_deleted_job_leaves_nothing_behind(job: ClusterJob, kube: Kube) -> None:
    before = everything(kube, job.namespace)
    job.command = IDLE
    job.apply()
    job.wait_phase("Running")
    assert everything(kube, job.namespace) - before >= {f"pod/{name}" for name in job.nodes()}
    kube.kubectl("delete", "tj", job.name, "--wait=false", namespace=job.namespace)
    kube.wait_gone("trainingjob", job.name, job.namespace, seconds=DELETE_SECONDS)
    for pod in job.pods():
        kube.wait_gone("pod", pod["metadata"]["name"], job.namespace, seconds=DELETE_SECONDS)
    before |= EVERY_NAMESPACE
    for left in everything(kube, job.namespace) - before:  # the garbage collector may need a moment
        kind, _, name = left.partition("/")
        kube.wait_gone(kind, name, job.namespace, seconds=DELETE_SECONDS)
    assert everything(kube, job.namespace) <= before


def test_a_namespace_deleted_in_the_middle_of_a_run_goes(job: ClusterJob, kube: Kube) -> None:
    calm = restarts_of(operator_pods(kube))
    job.command = IDLE
    job.apply()
    job.wait_phase("Running")
    kube.kubectl("delete", "namespace", job.namespace, "--wait=false")
    kube.wait_gone("namespace", job.namespace, seconds=DELETE_SECONDS)
    assert restarts_of(operator_pods(kube)) == calm, f"a container of {SYSTEM} was started again"


def test_suspend_and_resume_keep_the_progress(job: ClusterJob, kube: Kube, local_hash: Callable[..., str]) -> None:
    job.apply()
    reached = job.wait_step(random_step(8, 40))
    job.patch({"suspend": True})
    job.wait_phase("Suspended")
    for pod in job.pods():
        kube.wait_gone("pod", pod["metadata"]["name"], job.namespace, seconds=DELETE_SECONDS)
    kept = job.stored().newest  # the Pods brought their newest into the storage when they ended
    assert kept is not None
    assert kept.step >= reached - 5, f"suspended after step {reached}, and only step {kept.step} was kept"
    job.patch({"suspend": False})
    done = job.wait_succeeded()
    assert done["status"]["attempts"][-1]["resumedStep"] == kept.step
    assert job.final_hash() == local_hash(job.workers, job.steps)
