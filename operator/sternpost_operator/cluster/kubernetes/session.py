"""The HTTP session that kopf works with: the operator's own credentials and figures, and a word when kopf lists anew."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.client_middlewares import ClientHandlerType

from sternpost_operator.cluster.kubernetes.client import KubernetesClient, RequestObserver
from sternpost_operator.cluster.kubernetes.inventory import WATCHED
from sternpost_operator.cluster.kubernetes.paths import Kind
from sternpost_operator.resources import deep_json

_COLLECTIONS = {(kind.group, kind.plural): kind for kind in WATCHED}


@dataclass(frozen=True)
class Asked:
    """What a URL asks for. Pure."""

    verb: str
    resource: str
    kind: Kind | None = None
    """Set for the collections that are watched."""
    namespace: str | None = None


def asked(method: str, path: str, *, watch: bool) -> Asked:
    """From a path of the Kubernetes API."""
    parts = path.strip("/").split("/")
    group, rest = ("", parts[2:]) if parts[:1] == ["api"] else (parts[1] if len(parts) > 1 else "", parts[3:])
    namespace = None
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    if not rest:
        return Asked(method.lower(), "discovery")
    is_collection = len(rest) == 1 and method == "GET"
    verb = "watch" if watch else "list" if is_collection else method.lower()
    return Asked(verb, rest[0], _COLLECTIONS.get((group, rest[0])) if is_collection else None, namespace)


class Relists:
    """Knows which collections were listed before: kopf tells nobody what vanished between two lists."""

    def __init__(self, on_relist: Callable[[Kind, str | None], None]) -> None:
        self._on_relist = on_relist
        self._listed: set[tuple[str, str | None]] = set()

    def listed(self, kind: Kind, namespace: str | None) -> None:
        """A list was answered."""
        key = (kind.plural, namespace)
        if key in self._listed:
            self._on_relist(kind, namespace)
        self._listed.add(key)


class DeepResponse(aiohttp.ClientResponse):
    """Reads a list of objects whatever is in one of them: no tenant's template may keep the operator from starting."""

    async def json(self, **_: Any) -> Any:
        """As JSON of any depth."""
        return deep_json.loads(await self.text(encoding="utf-8"))


def watching_session(
    client: KubernetesClient, observer: RequestObserver, on_relist: Callable[[Kind, str | None], None]
) -> aiohttp.ClientSession:
    """A session for requests to the API server. Its token is read anew as it is renewed."""
    relists = Relists(on_relist)

    async def middleware(request: aiohttp.ClientRequest, handler: ClientHandlerType) -> aiohttp.ClientResponse:
        authorization = await client.authorization()
        if authorization:
            request.headers["Authorization"] = authorization
        what = asked(request.method, request.url.path, watch=request.url.query.get("watch") == "true")
        began = time.monotonic()
        try:
            response = await handler(request)
        except (aiohttp.ClientError, OSError) as error:
            reason = "timeout" if isinstance(error, TimeoutError) else "connection"
            observer.request_failed(what.verb, what.resource, reason, time.monotonic() - began)
            raise
        observer.request_done(what.verb, what.resource, str(response.status), time.monotonic() - began)
        if what.verb == "list" and what.kind is not None and response.status == 200:
            relists.listed(what.kind, what.namespace)
        return response

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=client.ssl_context),
        middlewares=(middleware,),
        response_class=DeepResponse,
        read_bufsize=2**21,
        headers={"User-Agent": "sternpost-operator"},
    )
