"""kopf: what wakes a job's reconcile. Nothing is decided here, and nothing is written to the users' objects.

Index handlers run for every object before the first event handler does, so that the inventory is complete when the first
job is woken. What they keep is in the inventory and not in kopf's own indices: those do not learn what vanished between two
lists, nor what the operator has just done itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import aiohttp
import kopf
from kopf._cogs.clients import api as kopf_api

from sternpost_operator.cluster.kubernetes.inventory import WATCHED, Inventory, JobKey
from sternpost_operator.cluster.kubernetes.paths import PODS, Kind
from sternpost_operator.manifests.owned import JOB_LABEL
from sternpost_operator.resources import deep_json

CONNECT_SECONDS = 3.0
REQUEST_SECONDS = 30.0
"""For a list of everything."""
BACKOFFS = (0.2, 0.5, 1, 2, 4, 8, 15, 15)
"""Between repeated requests, in seconds; after that the operator ends, and is started anew."""
IDLE_SECONDS = 1.0
"""How long kopf keeps a task for an object of which it hears nothing more."""


class _NoDiff(kopf.DiffBaseStorage):
    """Keeps nothing: there are no handlers that ask what has changed."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> kopf.BodyEssence:  # noqa: ARG002
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:  # noqa: ARG002
        return None

    def store(self, **_: Any) -> None:
        """Nothing."""


class _NoProgress(kopf.ProgressStorage):
    """Keeps nothing: no handler is tried again."""

    def fetch(self, **_: Any) -> None:
        """Nothing is known."""

    def store(self, **_: Any) -> None:
        """Nothing."""

    def purge(self, **_: Any) -> None:
        """Nothing."""

    def touch(self, **_: Any) -> None:
        """Nothing."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


class _DeepJson:
    """In place of the module `json`, where kopf reads the lines of a watch: one object may be nested beyond Python's limit."""

    loads = staticmethod(deep_json.loads)


def read_any_depth() -> None:
    """Let kopf read objects of any depth. It ends all its watches at the first one that Python's JSON cannot read."""
    kopf_api.json = _DeepJson  # type: ignore[assignment,attr-defined]


def build_settings() -> kopf.OperatorSettings:
    """Settings under which kopf only watches."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.process.ultimate_exiting_timeout = None
    settings.persistence.diffbase_storage = _NoDiff()
    settings.persistence.progress_storage = _NoProgress()
    settings.networking.connect_timeout = CONNECT_SECONDS
    settings.networking.request_timeout = REQUEST_SECONDS
    settings.networking.error_backoffs = BACKOFFS
    settings.watching.connect_timeout = CONNECT_SECONDS
    settings.watching.label_selectors["v1", "pods"] = JOB_LABEL
    settings.queueing.idle_timeout = IDLE_SECONDS
    return settings


def build_registry(
    inventory: Inventory,
    wake: Callable[[JobKey], None],
    *,
    server: str,
    make_session: Callable[[], aiohttp.ClientSession],
) -> kopf.OperatorRegistry:
    """Handlers that keep `inventory` and `wake` the jobs that a change concerns."""
    read_any_depth()
    registry = kopf.OperatorRegistry()
    changed: set[JobKey] = set()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(server=server, aiohttp_session=make_session())

    for kind in WATCHED:
        _watch(registry, kind, inventory, wake, changed)
    return registry


def _watch(
    registry: kopf.OperatorRegistry,
    kind: Kind,
    inventory: Inventory,
    wake: Callable[[JobKey], None],
    changed: set[JobKey],
) -> None:
    selector = (kind.group, kind.version, kind.plural) if kind.group else (kind.version, kind.plural)

    @kopf.index(*selector, registry=registry, id=f"see-{kind.plural}")
    async def see(body: kopf.Body, **_: Any) -> None:
        changed.update(inventory.see(kind, dict(body)))

    @kopf.on.event(*selector, registry=registry, id=f"wake-{kind.plural}")
    async def notice(event: kopf.RawEvent, **_: Any) -> None:
        if event["type"] == "DELETED":
            metadata = event["object"]["metadata"]
            changed.update(
                inventory.lose(kind, metadata.get("namespace") or "", metadata["name"], metadata.get("uid") or "")
            )
        woken = list(changed)
        changed.clear()
        for key in woken:
            wake(key)


def list_query(kind: Kind) -> dict[str, str]:
    """What selects the objects of a kind that are watched."""
    return {"labelSelector": JOB_LABEL} if kind is PODS else {}
