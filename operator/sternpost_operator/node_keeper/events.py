"""Events on a node, for `kubectl describe node`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sternpost_operator.node_keeper.marks import OWNER

MAX_MESSAGE = 1024
NAMESPACE = "default"
"""Where events about objects of the cluster are kept."""


def node_event(node: str, uid: str, *, reason: str, message: str, now: datetime, is_warning: bool) -> dict[str, Any]:
    """A core/v1 Event about a node."""
    at = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{node[:200]}.", "namespace": NAMESPACE},
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid},
        "type": "Warning" if is_warning else "Normal",
        "reason": reason,
        "message": message[:MAX_MESSAGE],
        "source": {"component": OWNER},
        "reportingComponent": OWNER,
        "reportingInstance": OWNER,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }
