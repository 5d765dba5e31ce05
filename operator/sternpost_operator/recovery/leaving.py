"""Nodes and Pods that announce their end: maintenance, preemption, a drain. What is known beforehand need not be lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sternpost_operator.recovery.observed import NodeTaint, NodeView, PodView

REPRIEVE_SECONDS = 10.0
"""How long a launcher keeps ranks that are asked for a checkpoint alive after SIGTERM, as `docs/contracts.md` has it."""
NO_EXECUTE = "NoExecute"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
NOTICE_TAINTS = frozenset(
    {
        "ToBeDeletedByClusterAutoscaler",
        "cloud.google.com/impending-node-termination",
        "karpenter.sh/disrupted",
        "karpenter.sh/disruption",
        "node.cloudprovider.kubernetes.io/shutdown",
        OUT_OF_SERVICE,
    }
)
"""Taints that say, whatever their effect and whoever tolerates them, that the node is about to go."""
NOTICE_PREFIXES = ("aws-node-termination-handler/",)
READINESS_TAINTS = frozenset({"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"})
"""Say that the node does not answer: then `nodeLostSeconds` counts, and nothing can be saved."""

Toleration = Mapping[str, Any]


@dataclass(frozen=True)
class Leaving:
    """Why somebody goes, since when that is known, and when it is over at the latest."""

    reason: str
    since: datetime | None = None
    until: datetime | None = None
    """None: nobody said."""
    repels: bool = False
    """Whether the scheduler keeps new Pods away by itself."""


def of_node(node: NodeView, tolerations: Sequence[Toleration], now: datetime) -> Leaving | None:
    """The announcement that leaves the least time to a Pod with `tolerations`, if there is one. A cordon is none."""
    far = now + timedelta(days=365)
    return min(_announcements(node, tolerations, now), key=lambda each: (each.until or far, each.reason), default=None)


def of_pod(pod: PodView, of_its_node: Leaving | None, grace_seconds: float) -> Leaving | None:
    """What is announced of the Pod itself, or else of its node. A Pod that is being deleted has its launcher's reprieve."""
    reprieve = timedelta(seconds=min(REPRIEVE_SECONDS, grace_seconds))
    ends_at = None if pod.deleting_since is None else pod.deleting_since + reprieve
    if pod.disruption:
        return Leaving(f"Pod {pod.name} is about to be ended ({pod.disruption})", pod.deleting_since, ends_at)
    if of_its_node is not None and ends_at is not None:
        return Leaving(of_its_node.reason, of_its_node.since, ends_at)
    return of_its_node


def tolerated_seconds(tolerations: Sequence[Toleration], taint: NodeTaint) -> float | None:
    """For how long a Pod may stay in spite of a `NoExecute` taint: 0 if not at all, None for ever.

    As the taint manager has it: of all tolerations that match, the shortest counts.
    """
    matching = [each for each in tolerations if _tolerates(each, taint)]
    if not matching:
        return 0
    limits = [float(seconds) for each in matching if (seconds := each.get("tolerationSeconds")) is not None]
    return max(0.0, min(limits)) if limits else None


def _announcements(node: NodeView, tolerations: Sequence[Toleration], now: datetime) -> Iterator[Leaving]:
    for taint in node.taints:
        if taint.key in READINESS_TAINTS:
            continue
        reason = f"node {node.name} has the taint {_text(taint)}"
        seconds = tolerated_seconds(tolerations, taint) if taint.effect == NO_EXECUTE else None
        if seconds is not None:
            yield Leaving(reason, taint.since, (taint.since or now) + timedelta(seconds=seconds), repels=seconds == 0)
        elif taint.key in NOTICE_TAINTS or taint.key.startswith(NOTICE_PREFIXES):
            yield Leaving(reason, taint.since)


def _tolerates(toleration: Toleration, taint: NodeTaint) -> bool:
    if (toleration.get("effect") or taint.effect) != taint.effect:
        return False
    key = toleration.get("key") or ""
    if toleration.get("operator") == "Exists":
        return key in ("", taint.key)
    return key == taint.key and (toleration.get("value") or "") == taint.value


def _text(taint: NodeTaint) -> str:
    return f"{taint.key}={taint.value}:{taint.effect}" if taint.value else f"{taint.key}:{taint.effect}"
