"""Finds what vanished while a watch was interrupted: kopf lists anew and tells of what is there, not of what is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from sternpost_operator.cluster.kubernetes.client import KubernetesClient
from sternpost_operator.cluster.kubernetes.inventory import Inventory, JobKey
from sternpost_operator.cluster.kubernetes.paths import Kind
from sternpost_operator.cluster.kubernetes.views import version_of
from sternpost_operator.handlers import list_query

_logger = structlog.get_logger(__name__)

PAUSE_SECONDS = 2.0


class Sweeper:
    """One task; each collection that was listed anew is compared once."""

    def __init__(self, client: KubernetesClient, inventory: Inventory, wake: Callable[[JobKey], None]) -> None:
        self._client = client
        self._inventory = inventory
        self._wake = wake
        self._due: dict[tuple[str, str | None], Kind] = {}
        self._called = asyncio.Event()

    def relisted(self, kind: Kind, namespace: str | None) -> None:
        """Kopf has listed this collection again."""
        self._due[kind.plural, namespace] = kind
        self._called.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._called.wait()
            self._called.clear()
            for (plural, namespace), kind in list(self._due.items()):
                try:
                    await self._sweep(kind, namespace)
                except OSError as error:
                    _logger.warning("not compared yet", resource=plural, detail=str(error))
                    self._called.set()
                else:
                    self._due.pop((plural, namespace), None)
            if self._called.is_set():
                await asyncio.sleep(PAUSE_SECONDS)

    async def _sweep(self, kind: Kind, namespace: str | None) -> None:
        found = await self._client.list_metadata(kind, namespace, list_query(kind))
        uids = {item["metadata"]["uid"] for item in found.get("items") or []}
        concerned = self._inventory.relist(kind, namespace, uids, version_of(found))
        if concerned:
            _logger.info("objects vanished unnoticed", resource=kind.plural, jobs=len(concerned))
        for key in concerned:
            self._wake(key)
