"""When a node that is not ready was last alive. Its status says so to the minute; its Lease to the second."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime

import structlog

from sternpost_operator.cluster.kubernetes.client import KubernetesClient
from sternpost_operator.cluster.kubernetes.paths import LEASES
from sternpost_operator.cluster.pod_facts import mapping, parse_time
from sternpost_operator.recovery.observed import NodeView

_logger = structlog.get_logger(__name__)

NAMESPACE = "kube-node-lease"


class Heartbeats:
    """Reads a node's Lease once, each time that the node stops being ready."""

    def __init__(self, client: KubernetesClient) -> None:
        self._client = client
        self._known: dict[str, tuple[datetime, datetime | None]] = {}

    async def complete(self, nodes: tuple[NodeView, ...], of_interest: Collection[str]) -> tuple[NodeView, ...]:
        """The nodes with the last heartbeat of those of interest that are not ready."""
        lost = [node for node in nodes if not node.ready and node.name in of_interest]
        if not lost:
            return nodes
        found = {node.name: await self._last(node) for node in lost}
        return tuple(
            replace(node, last_heartbeat=heartbeat) if (heartbeat := found.get(node.name)) is not None else node
            for node in nodes
        )

    async def _last(self, node: NodeView) -> datetime | None:
        known = self._known.get(node.name)
        if known is not None and known[0] == node.ready_since:
            return known[1]
        try:
            lease = await self._client.get(LEASES, NAMESPACE, node.name)
        except OSError as error:
            # It only makes a figure better: the node's own status has a coarser one.
            _logger.info("lease of a node not read", node=node.name, detail=str(error))
            heartbeat = None
        else:
            heartbeat = parse_time(mapping(lease.get("spec")).get("renewTime"))
        if heartbeat is not None and heartbeat > node.ready_since:
            heartbeat = node.ready_since
        self._known[node.name] = (node.ready_since, heartbeat)
        return heartbeat
