"""Takes the Lease, renews it and gives it back. The decisions are the election's."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog

from sternpost_operator.cluster.kubernetes.client import KubernetesClient
from sternpost_operator.cluster.kubernetes.errors import ApiError, ExistsError, NotFoundError, VersionConflictError
from sternpost_operator.cluster.kubernetes.paths import LEASES
from sternpost_operator.cluster.pod_facts import mapping, parse_time
from sternpost_operator.operator_process.election import LEASE_SECONDS, Do, Election, Lease

_logger = structlog.get_logger(__name__)

NAME = "sternpost-operator"
WRITE_SECONDS = 2.5
"""A write that is not answered by then counts as failed, and is tried again."""
PAUSE_SECONDS = 1.0
"""Before the Lease is read again after a fault."""


class LeaseKeeper:
    """The Lease `sternpost-operator` of a namespace, for one replica. A replica that does not lead watches, and asks nothing."""

    def __init__(
        self,
        client: KubernetesClient,
        namespace: str,
        identity: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        on_transition: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._clock = clock
        self._now = now
        self._changed = asyncio.Event()
        self.election = Election(identity, clock(), on_transition)

    async def acquire(self) -> None:
        """Return when this replica leads."""
        watcher = asyncio.create_task(self._watch(), name="lease")
        try:
            await self._changed.wait()  # the first look
            while not self.election.leads:
                step = self.election.next(self._clock())
                if step.do is Do.TAKE:
                    await self._write()
                else:
                    self._changed.clear()
                    await self._pause(step.seconds)
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    async def keep(self) -> None:
        """Return when this replica leads no more."""
        while True:
            step = self.election.next(self._clock())
            match step.do:
                case Do.END:
                    return
                case Do.RENEW:
                    await self._write()
                case _:
                    await asyncio.sleep(step.seconds)

    async def give_back(self) -> None:
        """Let another replica lead at once; if that fails, it does when the Lease has run out."""
        lease = self.election.to_give_back(self._now())
        if lease is None:
            return
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(WRITE_SECONDS):
                await self._client.replace(LEASES, self._namespace, NAME, self._manifest(lease))
        self.election.leads = False

    async def _write(self) -> None:
        asked_at = self._clock()
        lease = self.election.to_write(self._now())
        manifest = self._manifest(lease)
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                if lease.version:
                    stored = await self._client.replace(LEASES, self._namespace, NAME, manifest)
                else:
                    stored = await self._client.create(LEASES, self._namespace, manifest)
        except (ExistsError, VersionConflictError, NotFoundError):
            self.election.failed(self._clock())
            await self._look()
        except (OSError, TimeoutError) as error:
            self.election.failed(self._clock())
            _logger.warning("lease not written", detail=str(error) or "no answer in time")
        else:
            self.election.wrote(parse(stored), asked_at)

    async def _look(self) -> str:
        """Read the Lease; the resource version to watch from. Raises nothing: what is not answered is looked at again."""
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                found = await self._client.get(LEASES, self._namespace, NAME)
        except NotFoundError:
            self.election.seen(None, self._clock())
        except (OSError, TimeoutError) as error:
            _logger.warning("lease not read", detail=str(error) or "no answer in time")
            return ""
        else:
            self.election.seen(parse(found), self._clock())
            self._changed.set()
            return str(found["metadata"]["resourceVersion"])
        self._changed.set()
        return ""

    async def _watch(self) -> None:
        while True:
            version = await self._look()
            if version:
                try:
                    await self._follow(version)
                except ApiError as error:
                    _logger.info("lease not watched", detail=str(error))
                except OSError as error:
                    _logger.info("watch of the lease ended", detail=str(error))
            await asyncio.sleep(PAUSE_SECONDS)

    async def _follow(self, version: str) -> None:
        query = {"fieldSelector": f"metadata.name={NAME}", "resourceVersion": version}
        async for event in self._client.watch(LEASES, self._namespace, query):
            match event.get("type"):
                case "ADDED" | "MODIFIED":
                    self.election.seen(parse(event["object"]), self._clock())
                case "DELETED":
                    self.election.seen(None, self._clock())
                case "ERROR":
                    return
            self._changed.set()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)

    def _manifest(self, lease: Lease) -> dict[str, Any]:
        return manifest_of(lease, self._namespace)


def parse(manifest: dict[str, Any]) -> Lease:
    """What a Lease object says; whatever is missing counts as free."""
    metadata, spec = mapping(manifest.get("metadata")), mapping(manifest.get("spec"))
    duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    return Lease(
        holder=str(spec.get("holderIdentity") or ""),
        version=str(metadata.get("resourceVersion") or ""),
        acquired_at=parse_time(spec.get("acquireTime")),
        renewed_at=parse_time(spec.get("renewTime")),
        transitions=transitions if isinstance(transitions, int) else 0,
        duration_seconds=float(duration) if isinstance(duration, int) and duration > 0 else LEASE_SECONDS,
    )


def manifest_of(lease: Lease, namespace: str) -> dict[str, Any]:
    """The Lease object; over the version that was seen, if one was."""
    spec: dict[str, Any] = {
        "holderIdentity": lease.holder,
        "leaseDurationSeconds": max(1, round(lease.duration_seconds)),
        "leaseTransitions": lease.transitions,
        "acquireTime": _micro(lease.acquired_at),
        "renewTime": _micro(lease.renewed_at),
    }
    return {
        "apiVersion": LEASES.api_version,
        "kind": LEASES.kind,
        "metadata": {
            "name": NAME,
            "namespace": namespace,
            **({"resourceVersion": lease.version} if lease.version else {}),
        },
        "spec": {name: value for name, value in spec.items() if value is not None},
    }


def _micro(moment: datetime | None) -> str | None:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if moment is not None else None
