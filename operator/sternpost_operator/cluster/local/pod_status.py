"""The PodStatus that a node's agent writes, in Kubernetes' form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sternpost_operator.cluster.local.container import Container, rfc3339
from sternpost_operator.cluster.local.environment import ADDRESS

PENDING, RUNNING, SUCCEEDED, FAILED = "Pending", "Running", "Succeeded", "Failed"
TERMINAL = (SUCCEEDED, FAILED)


def condition(kind: str, *, true: bool, since: float, reason: str = "", message: str = "") -> dict[str, Any]:
    """One PodCondition."""
    found: dict[str, Any] = {"type": kind, "status": "True" if true else "False", "lastTransitionTime": rfc3339(since)}
    if reason:
        found["reason"] = reason
    if message:
        found["message"] = message
    return found


def pod_status(
    *,
    phase: str,
    started_at: float,
    sidecars_and_init: Sequence[Container] = (),
    main: Sequence[Container] = (),
    sidecar_names: frozenset[str] = frozenset(),
    initialized: bool = False,
    reason: str = "",
    message: str = "",
) -> dict[str, Any]:
    """The status of a Pod whose containers are in this state; `started_at` in Unix seconds."""
    sidecars = [container for container in sidecars_and_init if container.name in sidecar_names]
    ready = phase == RUNNING and all(container.running for container in (*sidecars, *main))
    waiting = "PodInitializing" if not initialized else "ContainerCreating"
    status: dict[str, Any] = {
        "phase": phase,
        "startTime": rfc3339(started_at),
        "hostIP": ADDRESS,
        "podIP": ADDRESS,
        "podIPs": [{"ip": ADDRESS}],
        "conditions": [
            condition("PodScheduled", true=True, since=started_at),
            condition("Initialized", true=initialized, since=started_at),
            condition("ContainersReady", true=ready, since=started_at),
            condition("Ready", true=ready, since=started_at),
        ],
        "initContainerStatuses": [
            container.to_status(
                waiting_reason="PodInitializing",
                ready=container.running if container.name in sidecar_names else container.succeeded,
            )
            for container in sidecars_and_init
        ],
        "containerStatuses": [
            container.to_status(waiting_reason=waiting, ready=container.running) for container in main
        ],
    }
    if reason:
        status["reason"] = reason
    if message:
        status["message"] = message
    return status


def unscheduled_status(message: str, *, since: float) -> dict[str, Any]:
    """The status of a Pod that no node can take now."""
    return {
        "phase": PENDING,
        "conditions": [condition("PodScheduled", true=False, since=since, reason="Unschedulable", message=message)],
    }
