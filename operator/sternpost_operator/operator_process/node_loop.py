"""Calls the node keeper when a node, or what jobs say of one, has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime

from sternpost_operator.cluster.kubernetes.cluster import KubernetesCluster
from sternpost_operator.cluster.kubernetes.inventory import JobKey
from sternpost_operator.metrics.operator_metrics import OperatorMetrics
from sternpost_operator.node_keeper.decision import KeptNode
from sternpost_operator.node_keeper.keeper import NodeKeeper
from sternpost_operator.recovery import exclusion
from sternpost_operator.resources.training_job import TrainingJob

PERIOD_SECONDS = 1.0


class NodeLoop:
    """Looks once a second; the keeper is called only where there is something new, or due."""

    def __init__(
        self,
        keeper: NodeKeeper,
        cluster: KubernetesCluster,
        *,
        jobs: Callable[[], Iterable[TrainingJob]],
        metrics: OperatorMetrics,
        wake: Callable[[JobKey], None],
        now: Callable[[], datetime],
    ) -> None:
        self._keeper = keeper
        self._cluster = cluster
        self._jobs = jobs
        self._metrics = metrics
        self._wake = wake
        self._now = now
        self._revision = -1
        self._nodes: tuple[KeptNode, ...] = ()

    async def run(self) -> None:
        """Until cancelled."""
        known: object = None
        loop = asyncio.get_running_loop()
        due: float | None = None
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            held = held_nodes(self._jobs())
            seen = (self._kept(), held)
            if seen == known and (due is None or loop.time() < due):
                continue
            known = seen
            kept = await self._keeper.reconcile(self._nodes, held, self._now())
            due = None if kept.next_in is None else loop.time() + kept.next_in
            self._metrics.keeps_cordoned(kept.cordoned)
            if kept.drains != self._cluster.drains:
                concerned = {*kept.drains, *self._cluster.drains}
                self._cluster.drains = kept.drains
                for key in {key for node in concerned for key in self._cluster.inventory.jobs_on(node)}:
                    self._wake(key)

    def _kept(self) -> tuple[KeptNode, ...]:
        nodes = self._cluster.inventory.nodes
        if nodes.revision != self._revision:
            self._revision = nodes.revision
            # A heartbeat is no news of a node.
            self._nodes = tuple(
                KeptNode(replace(entry.view, last_heartbeat=None), entry.marks, entry.uid) for entry in nodes
            )
        return self._nodes


def held_nodes(jobs: Iterable[TrainingJob]) -> frozenset[str]:
    """Nodes that a job which has not ended keeps away from on the node's own evidence. Pure."""
    return frozenset(node for job in jobs if not job.status.phase.terminal for node in exclusion.proven(job.status))
