"""The operator's process: follow, lead, end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from sternpost_operator.cluster.kubernetes.client import KubernetesClient
from sternpost_operator.cluster.kubernetes.configuration import load_configuration
from sternpost_operator.metrics.jobs import JobMetrics
from sternpost_operator.metrics.operator_metrics import OperatorMetrics
from sternpost_operator.operator_process.http import build_app, serve
from sternpost_operator.operator_process.leader import Leader, leading
from sternpost_operator.operator_process.lease_keeper import LeaseKeeper
from sternpost_operator.operator_process.options import Options

_logger = structlog.get_logger(__name__)

ENDED, LOST_LEASE, FAILED = 0, 3, 1
"""Exit codes."""

GOODBYE_SECONDS = 5.0
"""For what is in the middle of something when the process is told to end."""


async def run(options: Options) -> int:
    """Until told to end, or until the Lease is lost; the exit code. Raises `NoClusterError`, `OSError`."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    metrics, jobs = OperatorMetrics(registry), JobMetrics(registry)
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        client = KubernetesClient(await load_configuration(), metrics)
        stack.push_async_callback(client.aclose)
        runner, port = await serve(build_app(registry, lambda: True, lambda: True), options.host, options.port)
        stack.push_async_callback(runner.cleanup)
        _logger.info("operator starts", identity=options.identity, port=port, server=client.host)
        keeper = LeaseKeeper(client, options.namespace, options.identity, on_transition=metrics.leader_transitions.inc)
        _listen(stop)
        if await _first(keeper.acquire(), stop.wait()):
            return ENDED
        metrics.leader.set(1)
        _logger.info("leads", identity=options.identity)
        async with leading(options, client, metrics, jobs) as leader:
            code = await _lead(leader, keeper, stop)
            # Nothing is left that must be ended well, and something may hang.
            end_now(code)
            return code


async def _lead(leader: Leader, keeper: LeaseKeeper, stop: asyncio.Event) -> int:
    lease = asyncio.create_task(keeper.keep(), name="renewal")
    work = asyncio.create_task(leader.run(), name="leader")
    told = asyncio.create_task(_told_to_stop(leader, stop), name="stop")
    done, _ = await asyncio.wait({lease, work, told}, return_when=asyncio.FIRST_COMPLETED)
    if told in done:
        _logger.info("ends as told")
        work.cancel()
        await asyncio.wait({work}, timeout=GOODBYE_SECONDS)
        lease.cancel()
        await asyncio.wait({lease}, timeout=GOODBYE_SECONDS)
        await keeper.give_back()
        return ENDED
    if work in done:
        error = work.exception() if not work.cancelled() else None
        _logger.error("ends: a part of the operator failed", error=repr(error), exc_info=error)
        lease.cancel()
        await keeper.give_back()
        return FAILED
    # Another replica may begin to lead now. Whatever is under way here must not go on.
    _logger.error("ends: the lease is lost")
    return LOST_LEASE


def end_now(code: int) -> None:
    """End the process without waiting for anything."""
    sys.stdout.flush()
    os._exit(code)


async def _told_to_stop(leader: Leader, stop: asyncio.Event) -> None:
    await leader.watching.wait()
    _listen(stop)  # kopf has put its own handlers in place
    await stop.wait()


def _listen(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


async def _first(*parts: object) -> bool:
    """Run both; whether the second ended first. The other is cancelled."""
    work, other = (asyncio.ensure_future(part) for part in parts)  # type: ignore[call-overload]
    done, pending = await asyncio.wait({work, other}, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    if work in done:
        work.result()
    return work not in done
