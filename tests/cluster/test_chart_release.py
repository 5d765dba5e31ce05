"""The chart on a real cluster: `helm test`, upgrade, rollback, uninstall, and what a running job notices of it: nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from chart_release import CHART, RELEASE, SYSTEM, install
from cluster_job import ClusterJob
from kube import Kube, Object

CRDS = ("trainingjobs.sternpost.dev", "attempts.sternpost.dev", "anomalies.sternpost.dev")
COLUMN = {"name": "Priority", "type": "string", "jsonPath": ".spec.template.spec.priorityClassName", "priority": 1}
RECONCILE_SECONDS = 60


def test_helm_test_says_that_all_is_well(kube: Kube, chart: str) -> None:
    told = kube.helm("test", RELEASE, "--namespace", chart, "--logs", "--timeout", "3m")
    for line in ("the API server serves TrainingJob", "the operator is ready", "leads", "finds what it was told"):
        assert line in told


def test_upgrade_rollback_and_uninstall_leave_a_running_job_alone(
    kube: Kube, chart: str, job: ClusterJob, tmp_path: Path
) -> None:
    job.workers, job.steps, job.step_seconds = 2, 100_000, 0.1
    job.apply()
    step = job.wait_step(5)
    before, password = worker_containers(job), redis_password(kube)
    leader = holder(kube)
    try:
        install(kube, more={"operator": {"logLevel": "debug", "podAnnotations": {"test": "upgraded"}}})
        assert holder(kube, other_than=leader) in operator_pods(kube)
        assert redis_password(kube) == password
        step = goes_on(job, step, before)

        with_column = chart_with_a_column(tmp_path)
        kube.helm("upgrade", RELEASE, with_column, "--namespace", SYSTEM, "--reuse-values", "--wait", "--timeout", "4m")
        assert "Priority" in columns(kube)
        kube.helm("rollback", RELEASE, "--namespace", SYSTEM, "--wait", "--timeout", "4m")
        assert "Priority" not in columns(kube)
        step = goes_on(job, step, before)

        kube.helm("uninstall", RELEASE, "--namespace", SYSTEM, "--wait", "--timeout", "4m")
        assert operator_pods(kube) == []
        assert all(kube.get("customresourcedefinition", name) for name in CRDS)
        step = goes_on(job, step, before)
    finally:
        install(kube)  # the other tests need it
    assert job.object()["metadata"]["uid"]
    goes_on(job, step, before)
    job.patch({"suspend": True})
    job.wait_phase("Suspended", seconds=RECONCILE_SECONDS)


def goes_on(job: ClusterJob, step: int, before: dict[str, Any]) -> int:
    """The job has trained on in the same containers, in its first attempt; returns its step."""
    now = job.wait_step(step + 20, seconds=60)
    assert worker_containers(job) == before
    status = job.object()["status"]
    assert (status["attempt"]["number"], status.get("restarts", 0)) == (1, 0)
    return now


def worker_containers(job: ClusterJob) -> dict[str, Any]:
    """Pod → its uid and the ids of its containers, which change whenever one of them is started anew."""
    return {
        pod["metadata"]["name"]: (
            pod["metadata"]["uid"],
            sorted(
                status["containerID"]
                for kind in ("containerStatuses", "initContainerStatuses")
                for status in pod["status"][kind]
            ),
        )
        for pod in job.pods()
    }


def operator_pods(kube: Kube) -> list[str]:
    """Names of the operator's Pods that are not on their way out."""
    pods = kube.items("pods", SYSTEM, "--selector", "app.kubernetes.io/component=operator")
    return [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def holder(kube: Kube, *, other_than: str = "") -> str:
    """Who leads."""

    def leads(lease: Object) -> bool:
        return (lease["spec"].get("holderIdentity") or other_than) != other_than

    lease = kube.wait_for("lease", "sternpost-operator", leads, "held", namespace=SYSTEM, seconds=RECONCILE_SECONDS)
    return str(lease["spec"]["holderIdentity"])


def redis_password(kube: Kube) -> str:
    """As it is stored."""
    secret = kube.get("secret", f"{RELEASE}-redis", SYSTEM)
    assert secret is not None
    return str(secret["data"]["password"])


def columns(kube: Kube) -> list[str]:
    """Of `kubectl get trainingjobs`."""
    crd = kube.get("customresourcedefinition", CRDS[0])
    assert crd is not None
    return [column["name"] for column in crd["spec"]["versions"][0]["additionalPrinterColumns"]]


def chart_with_a_column(folder: Path) -> Path:
    """A later version of the chart, whose TrainingJob has one more column."""
    copy = folder / "sternpost"
    shutil.copytree(CHART, copy)
    file = copy / "files" / "crds" / "sternpost.dev_trainingjobs.yaml"
    text = file.read_text(encoding="utf-8")
    anchor = "    additionalPrinterColumns:\n"
    assert text.count(anchor) == 1
    file.write_text(text.replace(anchor, f"{anchor}    - {json.dumps(COLUMN)}\n"), encoding="utf-8")
    return copy
