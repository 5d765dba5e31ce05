"""Pods that outlive their job on a node that is lost: Kubernetes marks them deleted, and waits for the node for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

import structlog

from sternpost_operator.cluster.kubernetes.cluster import KubernetesCluster
from sternpost_operator.cluster.kubernetes.entries import PodEntry
from sternpost_operator.recovery.actions import DeletePod
from sternpost_operator.recovery.observed import NodeView

_logger = structlog.get_logger(__name__)

PERIOD_SECONDS = 10.0
LOST_SECONDS = 40.0
"""A node that was not ready for so long, while a Pod on it was to end, will not end it: a job gives up after 10 + 30."""


def to_force(
    pods: Iterable[PodEntry], owners: frozenset[str], nodes: Mapping[str, NodeView], now: datetime
) -> list[PodEntry]:
    """Pods of jobs that are gone, to be deleted by force. `owners` are the uids of the jobs there are. Pure."""
    patience = timedelta(seconds=LOST_SECONDS)

    def is_stuck(entry: PodEntry) -> bool:
        since = entry.view.deleting_since
        if not entry.owner or entry.owner in owners or since is None or now - since < patience:
            return False
        node = nodes.get(entry.view.node or "")
        return node is None or (not node.ready and now - node.ready_since >= patience)

    return [entry for entry in pods if is_stuck(entry)]


class Orphans:
    """Looks for them now and then; without any, that costs no request."""

    def __init__(self, cluster: KubernetesCluster, now: Callable[[], datetime]) -> None:
        self._cluster = cluster
        self._now = now

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            await self.once()

    async def once(self) -> None:
        """One look. A server that does not answer is asked at the next."""
        inventory = self._cluster.inventory
        owners = frozenset(entry.uid for entry in inventory.jobs)
        nodes = {view.name: view for view in inventory.node_views()}
        for entry in to_force(inventory.pods, owners, nodes, self._now()):
            _logger.warning("pod of a deleted job on a lost node is removed", namespace=entry.namespace, pod=entry.name)
            try:
                await self._cluster.pods.delete(entry.namespace, DeletePod(entry.name, entry.uid, 0, force=True))
            except OSError as error:
                _logger.warning("not removed", namespace=entry.namespace, pod=entry.name, detail=str(error))
