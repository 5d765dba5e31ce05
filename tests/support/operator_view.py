"""What the operator's own Pods show: who leads, and its metrics."""

from __future__ import annotations

from chart_release import SYSTEM
from harness.commands import CommandError
from kube import Kube, Object

LEASE = "sternpost-operator"
CONTAINER = "operator"
_SELECTOR = "app.kubernetes.io/component=operator"


def operator_pods(kube: Kube) -> list[Object]:
    """Its replicas that are not being deleted."""
    pods = kube.items("pods", SYSTEM, "--selector", _SELECTOR)
    assert pods, f"no Pod with {_SELECTOR} in {SYSTEM}"
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def holder(lease: Object) -> str:
    """Who holds the Lease."""
    return str((lease.get("spec") or {}).get("holderIdentity") or "")


def leader(kube: Kube) -> str:
    """The Pod that leads: the Lease's holder begins with its name."""
    lease = kube.get("lease", LEASE, SYSTEM)
    assert lease is not None, f"no Lease {LEASE} in {SYSTEM}"
    names = [pod["metadata"]["name"] for pod in operator_pods(kube)]
    leading = [name for name in names if holder(lease).startswith(name)]
    assert leading, f"the Lease is held by {holder(lease)!r}, and the operator's Pods are {names}"
    return str(leading[0])


def replica_metrics(kube: Kube) -> dict[str, dict[str, float]]:
    """The samples of each replica that answers, by Pod."""
    found = {}
    for pod in operator_pods(kube):
        name = pod["metadata"]["name"]
        try:
            found[name] = kube.metrics(name, 8080, SYSTEM)
        except CommandError:
            continue
    return found


def operator_metrics(kube: Kube) -> dict[str, float]:
    """The samples of all replicas that answer, added up."""
    total: dict[str, float] = {}
    for page in replica_metrics(kube).values():
        for name, value in page.items():
            total[name] = total.get(name, 0.0) + value
    return total


def growth(before: dict[str, dict[str, float]], after: dict[str, dict[str, float]], counter: str) -> float:
    """By how much a counter grew over all replicas; one that was started anew in between began at nothing."""
    grown = 0.0
    for pod, page in after.items():
        now, then = page.get(counter, 0.0), before.get(pod, {}).get(counter, 0.0)
        grown += now - then if now >= then else now
    return grown


def restarts_of(pods: list[Object]) -> dict[str, int]:
    """How often each container was started again, by Pod and container."""
    return {
        f"{pod['metadata']['name']}/{each['name']}": each["restartCount"]
        for pod in pods
        for each in pod["status"].get("containerStatuses", [])
    }
