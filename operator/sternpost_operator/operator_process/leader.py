"""Everything that only the leader does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
import httpx
import kopf
import structlog

from sternpost_operator.cluster.kubernetes.client import KubernetesClient
from sternpost_operator.cluster.kubernetes.cluster import KubernetesCluster
from sternpost_operator.cluster.kubernetes.incidents import IncidentSender
from sternpost_operator.cluster.kubernetes.inventory import Inventory, JobKey
from sternpost_operator.cluster.kubernetes.memory_spaces import MemorySpaces
from sternpost_operator.cluster.kubernetes.outbox import Outbox
from sternpost_operator.cluster.kubernetes.progress_stream import ProgressStreams
from sternpost_operator.cluster.kubernetes.session import watching_session
from sternpost_operator.cluster.memory_client import MemoryClient, bearer
from sternpost_operator.handlers import build_registry, build_settings
from sternpost_operator.metrics.jobs import JobMetrics
from sternpost_operator.metrics.operator_metrics import OperatorMetrics
from sternpost_operator.node_keeper.history import Authorization, NodeHistory
from sternpost_operator.node_keeper.keeper import NodeKeeper
from sternpost_operator.node_keeper.settings import KeeperSettings
from sternpost_operator.operator_process.events import EventWriter
from sternpost_operator.operator_process.node_loop import NodeLoop
from sternpost_operator.operator_process.options import Options
from sternpost_operator.operator_process.orphans import Orphans
from sternpost_operator.operator_process.queue import WorkQueue
from sternpost_operator.operator_process.reconciler import Reconciler
from sternpost_operator.operator_process.sweeper import Sweeper

_logger = structlog.get_logger(__name__)

SPACING_SECONDS = 0.1
"""Between two reconciles of a job."""


def utc_now() -> datetime:
    """The time of this machine."""
    return datetime.now(UTC)


@dataclass
class Leader:
    """What the leader's tasks share. Make it with `leading`."""

    options: Options
    client: KubernetesClient
    metrics: OperatorMetrics
    inventory: Inventory
    queue: WorkQueue[JobKey]
    cluster: KubernetesCluster
    reconciler: Reconciler
    events: EventWriter
    sweeper: Sweeper
    orphans: Orphans
    nodes: NodeLoop
    watching: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once kopf has begun."""

    async def run(self) -> None:
        """Until cancelled; ends with an error if any part of it does."""
        parts: dict[str, Coroutine[Any, Any, None]] = {
            "reconciler": self.reconciler.run(),
            "events": self.events.run(),
            "incidents": self.cluster.incidents.run(),
            "sweeper": self.sweeper.run(),
            "orphans": self.orphans.run(),
            "nodes": self.nodes.run(),
            "kopf": self._watch(),
        }
        async with asyncio.TaskGroup() as group:
            for name, part in parts.items():
                group.create_task(part, name=name)

    async def _watch(self) -> None:
        registry = build_registry(
            self.inventory,
            self.queue.wake,
            server=self.client.host,
            make_session=lambda: watching_session(self.client, self.metrics, self.sweeper.relisted),
        )
        parts = await kopf.spawn_tasks(
            registry=registry,
            settings=build_settings(),
            standalone=True,
            clusterwide=not self.options.watch_namespaces,
            namespaces=self.options.watch_namespaces,
            # Its own would ask for a user name, which there need not be.
            identity=self.options.identity,  # type: ignore[arg-type]
        )
        self.watching.set()
        # Of its parts none may end: without its watches the operator would act upon what is no more. It is not asked to end
        # well, which may take it long; the process is.
        ended, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        for part in ended:
            error = None if part.cancelled() else part.exception()
            raise RuntimeError(f"kopf's {part.get_name()} has ended") from error


@asynccontextmanager
async def leading(
    options: Options, client: KubernetesClient, metrics: OperatorMetrics, jobs: JobMetrics
) -> AsyncIterator[Leader]:
    """A leader with its connections."""
    async with AsyncExitStack() as stack:
        web = await stack.enter_async_context(aiohttp.ClientSession(trust_env=False))
        memory_client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, follow_redirects=False))
        queue: WorkQueue[JobKey] = WorkQueue(SPACING_SECONDS)
        metrics.queue_depth.set_function(queue.depth)
        inventory = Inventory(dict(options.hardware))
        streams = ProgressStreams(web, queue.wake)
        stack.push_async_callback(streams.aclose)
        spaces = MemorySpaces(options.memory_url, options.namespace, frozenset(options.memory_shared_spaces))
        incidents = IncidentSender(
            MemoryClient(memory_client, token_file=options.memory_token_file),
            Outbox(client, options.namespace),
            spaces=spaces,
            observer=metrics,
            on_taken=queue.wake,
        )
        cluster = KubernetesCluster(
            client,
            inventory,
            images=options.images,
            namespace=options.namespace,
            metrics_namespaces=options.metrics_namespaces,
            streams=streams,
            incidents=incidents,
            history=NodeHistory(memory_client, _authorization(options)),
            spaces=spaces,
        )
        events = EventWriter(client, options.identity)
        reconciler = Reconciler(cluster, queue, metrics=metrics, job_metrics=jobs, events=events, now=utc_now)
        settings = KeeperSettings(
            cordon=options.cordon,
            drain=options.drain,
            uncordon_seconds=options.uncordon_seconds,
            max_share=options.cordon_max_share,
        )
        keeper = NodeKeeper(client, settings, dict(options.hardware), metrics)
        node_loop = NodeLoop(keeper, cluster, jobs=reconciler.jobs, metrics=metrics, wake=queue.wake, now=utc_now)
        yield Leader(
            options,
            client,
            metrics,
            inventory,
            queue,
            cluster,
            reconciler,
            events,
            Sweeper(client, inventory, queue.wake),
            Orphans(cluster, utc_now),
            node_loop,
        )


def _authorization(options: Options) -> Authorization | None:
    file = options.memory_token_file
    return None if file is None else lambda: bearer(file)
