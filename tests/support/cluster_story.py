"""What a test that fails on a cluster leaves to read: jobs, Pods, events, logs, what the operator said."""

from __future__ import annotations

from harness.commands import HarnessError
from kube import Kube

OBJECTS = "trainingjobs,attempts,anomalies"
SYSTEM = "sternpost-system"


def story(kube: Kube, namespace: str) -> str:
    """All of it as text; what cannot be read is said in its place."""
    parts = [
        _ask(kube, "get", "nodes", "-o", "wide"),
        _ask(kube, "get", OBJECTS, "-o", "yaml", "--show-managed-fields=false", namespace=namespace, lines=400),
        _ask(kube, "get", "pods", "-o", "wide", namespace=namespace),
        _ask(kube, "get", "events", "--sort-by=.lastTimestamp", namespace=namespace, lines=80),
        _ask(kube, "get", "pods", "-o", "wide", namespace=SYSTEM),
    ]
    parts += [_logs(kube, pod, namespace, 60) for pod in _names(kube, namespace)]
    parts += [_logs(kube, pod, SYSTEM, 150) for pod in _names(kube, SYSTEM)]
    return "\n".join(parts)


def _names(kube: Kube, namespace: str) -> list[str]:
    try:
        return kube.kubectl("get", "pods", "-o", "name", namespace=namespace).split()
    except HarnessError:
        return []


def _logs(kube: Kube, pod: str, namespace: str, lines: int) -> str:
    return _ask(kube, "logs", pod, "--all-containers", "--prefix", f"--tail={lines}", namespace=namespace, lines=400)


def _ask(kube: Kube, *arguments: str, namespace: str | None = None, lines: int = 100) -> str:
    try:
        answer = kube.kubectl(*arguments, namespace=namespace, timeout=30)
    except HarnessError as error:
        answer = str(error)
    shown = answer.rstrip().splitlines()[-lines:]
    return "\n".join([f"$ kubectl {' '.join(arguments)} # {namespace or 'cluster'}", *shown])
