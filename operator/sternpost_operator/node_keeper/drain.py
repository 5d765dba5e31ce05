"""Which Pods of a node a drain evicts, and what is in its way. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sternpost_operator.resources.base import GROUP

Json = dict[str, Any]

MAX_NAMED = 3
_MIRROR = "kubernetes.io/config.mirror"


@dataclass(frozen=True, order=True)
class Candidate:
    """A Pod to evict: exactly this object."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def eviction(self) -> Json:
        """The body for the Eviction API."""
        return {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"namespace": self.namespace, "name": self.name},
            "deleteOptions": {"preconditions": {"uid": self.uid}},
        }


@dataclass(frozen=True)
class DrainPlan:
    """What is left on a node for a drain."""

    evict: tuple[Candidate, ...] = ()
    ending: int = 0
    """Pods that are on their way out."""
    homeless: tuple[Candidate, ...] = ()
    """Pods that nobody would create anew: they are not evicted."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do or to wait for."""
        return not self.evict and not self.homeless and not self.ending


def plan_drain(pods: Iterable[Mapping[str, Any]]) -> DrainPlan:
    """Look at all Pods of a node.

    DaemonSets tolerate a cordon by design; mirror Pods belong to the kubelet; what has ended uses nothing; and workers of
    TrainingJobs are moved by the operator itself, with their checkpoint.
    """
    evict: list[Candidate] = []
    homeless: list[Candidate] = []
    ending = 0
    for pod in pods:
        metadata = pod.get("metadata") or {}
        phase = (pod.get("status") or {}).get("phase")
        owner = _controller(metadata)
        if _MIRROR in (metadata.get("annotations") or {}) or phase in ("Succeeded", "Failed"):
            continue
        if owner.get("kind") == "DaemonSet" or _is_worker(owner):
            continue
        candidate = Candidate(str(metadata.get("namespace")), str(metadata.get("name")), str(metadata.get("uid")))
        if metadata.get("deletionTimestamp") is not None:
            ending += 1
        elif owner:
            evict.append(candidate)
        else:
            homeless.append(candidate)
    return DrainPlan(tuple(sorted(evict)), ending, tuple(sorted(homeless)))


def describe(blocked: Mapping[Candidate, str], homeless: Iterable[Candidate]) -> str:
    """Why a drain does not get on, in a clause; empty if nothing is in its way."""
    reasons = [f"Pod {pod} cannot be evicted ({why})" for pod, why in sorted(blocked.items())]
    reasons += [f"Pod {pod} has no controller that would create it anew; delete it by hand" for pod in sorted(homeless)]
    more = f"; and {len(reasons) - MAX_NAMED} more" if len(reasons) > MAX_NAMED else ""
    return "; ".join(reasons[:MAX_NAMED]) + more


def _controller(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    owners = metadata.get("ownerReferences") or []
    return next((owner for owner in owners if owner.get("controller")), {})


def _is_worker(owner: Mapping[str, Any]) -> bool:
    return owner.get("kind") == "TrainingJob" and str(owner.get("apiVersion", "")).startswith(f"{GROUP}/")
