"""What the cluster tests of nodes share: a chart that may cordon, a job that saves only when it is asked to, a look at nodes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from cluster_job import ClusterJob
from kube import Kube, Object

CONDITION = "GpuUnhealthy"
TAINT = "sternpost.dev/unhealthy"
MAINTENANCE = "example.com/maintenance"
UNCORDON_SECONDS = 5


def exclusion_values(*, drain: bool) -> dict[str, Any]:
    """The chart's values for an operator that may cordon."""
    return {
        "nodeExclusion": {
            "enabled": True,
            "drain": drain,
            "conditions": [f"{CONDITION}=True"],
            "uncordonSeconds": UNCORDON_SECONDS,
        }
    }


@dataclass
class AskedJob(ClusterJob):
    """A job whose script saves for no reason of its own: what is restored was asked for."""

    grace_seconds: float = 15
    tolerated_seconds: int | None = None
    """How long its Pods tolerate `MAINTENANCE`; None: not at all."""

    def manifest(self) -> Object:
        made = super().manifest()
        made["spec"]["recovery"]["graceSeconds"] = self.grace_seconds
        pod = made["spec"]["template"]["spec"]
        pod["containers"][0]["args"].append("--every=100000")
        if self.tolerated_seconds is not None:
            pod["tolerations"] = [
                {
                    "key": MAINTENANCE,
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": self.tolerated_seconds,
                }
            ]
        return made


@dataclass
class BurningJob(ClusterJob):
    """A job whose steps need a processor, so that it can be missing."""

    burn_seconds: float = 0.1

    def manifest(self) -> Object:
        made = super().manifest()
        made["spec"]["template"]["spec"]["containers"][0]["args"].append(f"--burn-seconds={self.burn_seconds}")
        return made


def is_cordoned(node: Object) -> bool:
    """Whether no new Pod comes to the node."""
    return node["spec"].get("unschedulable") is True


def is_tainted(node: Object) -> bool:
    """Whether Sternpost says so to everybody."""
    return any(taint["key"] == TAINT for taint in node["spec"].get("taints") or [])


def untouched(kube: Kube) -> None:
    """Fail if any node is cordoned or tainted by the operator."""
    for node in kube.items("nodes"):
        name = node["metadata"]["name"]
        assert not is_tainted(node), f"{name} is tainted"
        assert not is_cordoned(node), f"{name} is cordoned"


def worker_on(job: ClusterJob, index: int) -> tuple[str, str]:
    """Pod and node of a worker, as the Attempt says."""
    attempt = job.kube.get("attempt", job.name, job.namespace)
    assert attempt is not None
    worker = next(each for each in attempt["spec"]["workers"] if each["index"] == index)
    return str(worker["pod"]), str(worker["node"])


def report_slow(job: ClusterJob, index: int) -> str:
    """Say, with the account of the job's own sidecars, that a worker is slow; returns the node that is blamed."""
    pod, node = worker_on(job, index)
    found = job.object()
    attempt = found["status"]["attempt"]["id"]
    now = job.kube.kubectl(
        "get", "--raw", f"/apis/sternpost.dev/v1alpha1/namespaces/{job.namespace}/attempts/{job.name}"
    )
    seen = json.loads(now)["spec"]["issuedAt"]
    anomaly = {
        "apiVersion": "sternpost.dev/v1alpha1",
        "kind": "Anomaly",
        "metadata": {
            "name": f"{attempt}-slow-{index}",
            "labels": {"sternpost.dev/job": job.name},
            "ownerReferences": [
                {
                    "apiVersion": "sternpost.dev/v1alpha1",
                    "kind": "TrainingJob",
                    "name": job.name,
                    "uid": found["metadata"]["uid"],
                }
            ],
        },
        "spec": {
            "job": job.name,
            "attempt": attempt,
            "kind": "slow",
            "worker": index,
            "pod": pod,
            "node": node,
            "confidence": 0.9,
            "evict": True,
            "evidence": "its compute time is three times its peers' median",
            "firstSeen": seen,
            "lastSeen": seen,
        },
    }
    account = f"--as=system:serviceaccount:{job.namespace}:{job.name}-sidecar"
    job.kube.kubectl("create", account, "-f", "-", namespace=job.namespace, stdin=json.dumps(anomaly))
    return node
