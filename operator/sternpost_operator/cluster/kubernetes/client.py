"""Requests to the Kubernetes API, as JSON: each with a time limit, each counted, each failure an `OSError`."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.exceptions import ApiException

from sternpost_operator.cluster.kubernetes.errors import ApiError, error_of
from sternpost_operator.cluster.kubernetes.paths import Kind
from sternpost_operator.resources import deep_json

Json = dict[str, Any]

CONNECT_SECONDS = 3.0
REQUEST_SECONDS = 10.0
"""For the whole of a request."""
WATCH_SECONDS = 300
"""After so long the server ends a watch, and the client begins another."""
SILENCE_SECONDS = 90.0
"""A watch that brings nothing for so long, not even a bookmark, counts as dead: they come once a minute."""
RETRIES = 2
"""Of requests that may be repeated."""
PAUSE_SECONDS = 0.2
MAX_PAUSE_SECONDS = 2.0

FIELD_MANAGER = "sternpost-operator"

_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_JSON = "application/json"
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_UNAUTHORIZED = 401
_WAITING = frozenset({429, 500, 502, 503, 504})
"""Answers that say: not now."""


_LIMIT = aiohttp.ClientTimeout(total=REQUEST_SECONDS, sock_connect=CONNECT_SECONDS)
_WATCH_LIMIT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
_MANAGED = {"fieldManager": FIELD_MANAGER}


@dataclass(frozen=True)
class Request:
    """What is asked of the API server."""

    verb: str
    """As in RBAC, and `apply`; for the figures."""
    kind: Kind
    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Json | None = None
    content: str = _JSON
    subresource: str | None = None
    accept: str = _JSON
    limit: aiohttp.ClientTimeout = _LIMIT

    @property
    def resource(self) -> str:
        """As in RBAC: `pods`, `pods/eviction`."""
        return f"{self.kind.plural}/{self.subresource}" if self.subresource else self.kind.plural

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class RequestObserver(Protocol):
    """Is told of every request."""

    def request_done(self, verb: str, resource: str, code: str, seconds: float) -> None:
        """The server answered with `code`."""
        ...

    def request_failed(self, verb: str, resource: str, reason: str, seconds: float) -> None:
        """There was no answer."""
        ...


class KubernetesClient:
    """The API server of `configuration`. Close it with `aclose`.

    Raises `ApiError` and its kinds, `RefusedByServerError`, and `OSError` where there is no answer.
    """

    def __init__(
        self,
        configuration: Configuration,
        observer: RequestObserver,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        self._api = ApiClient(configuration)
        self._api.user_agent = FIELD_MANAGER
        self._observer = observer
        self._clock = clock
        self._sleep = sleep

    async def aclose(self) -> None:
        """Close the connections."""
        await self._api.close()  # type: ignore[no-untyped-call]

    @property
    def host(self) -> str:
        """URL of the API server."""
        return str(self._api.configuration.host)

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """How the server is known."""
        context: ssl.SSLContext = self._api.rest_client.ssl_context
        return context

    async def authorization(self) -> str | None:
        """The header by which the server knows the operator, if there is one; a token in a file is read anew each minute."""
        header = await self._api.configuration.get_api_key_with_prefix("BearerToken")
        return header if isinstance(header, str) else None

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Json:
        """One object."""
        return await self._repeated(Request("get", kind, "GET", kind.path(namespace, name)))

    async def list(self, kind: Kind, namespace: str | None, query: Mapping[str, str] | None = None) -> Json:
        """A collection; `query` may select."""
        return await self._repeated(Request("list", kind, "GET", kind.path(namespace), query or {}))

    async def list_metadata(self, kind: Kind, namespace: str | None, query: Mapping[str, str] | None = None) -> Json:
        """A collection, of each object only the metadata."""
        path = kind.path(namespace)
        return await self._repeated(Request("list", kind, "GET", path, query or {}, accept=_METADATA_ONLY))

    async def create(self, kind: Kind, namespace: str | None, manifest: Json) -> Json:
        """POST an object; raises `ExistsError` if one of its name is there, and refuses fields that there are none of."""
        query = {**_MANAGED, "fieldValidation": "Strict"}
        return await self._once(Request("create", kind, "POST", kind.path(namespace), query, manifest))

    async def replace(
        self, kind: Kind, namespace: str | None, name: str, manifest: Json, *, subresource: str | None = None
    ) -> Json:
        """PUT an object; with `metadata.resourceVersion`, only over that version (`VersionConflictError`)."""
        path = kind.path(namespace, name, subresource)
        return await self._once(Request("update", kind, "PUT", path, _MANAGED, manifest, subresource=subresource))

    async def merge(
        self, kind: Kind, namespace: str | None, name: str, patch: Json, *, subresource: str | None = None
    ) -> Json:
        """A JSON merge patch."""
        path = kind.path(namespace, name, subresource)
        return await self._once(Request("patch", kind, "PATCH", path, _MANAGED, patch, _MERGE, subresource))

    async def apply(self, kind: Kind, namespace: str | None, manifest: Json, *, manager: str = FIELD_MANAGER) -> Json:
        """Apply on the server side; what others wrote into the same fields is overruled."""
        path = kind.path(namespace, manifest["metadata"]["name"])
        query = {"fieldManager": manager, "force": "true"}
        return await self._repeated(Request("apply", kind, "PATCH", path, query, manifest, _APPLY))

    async def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        grace_seconds: float | None = None,
        propagation: str | None = None,
    ) -> Json:
        """Delete exactly the object with `uid`; raises `VersionConflictError` if it is another, `NotFoundError`."""
        options: Json = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = max(0, round(grace_seconds))
        if propagation is not None:
            options["propagationPolicy"] = propagation
        return await self._once(Request("delete", kind, "DELETE", kind.path(namespace, name), body=options))

    async def post(self, kind: Kind, namespace: str | None, name: str, subresource: str, body: Json) -> Json:
        """POST to a subresource, such as a Pod's `eviction`."""
        path = kind.path(namespace, name, subresource)
        return await self._once(Request("create", kind, "POST", path, body=body, subresource=subresource))

    async def watch(self, kind: Kind, namespace: str | None, query: Mapping[str, str]) -> AsyncIterator[Json]:
        """The events of a watch, until the server or a fault ends it; the caller begins another."""
        begun = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_SECONDS), **query}
        request = Request("watch", kind, "GET", kind.path(namespace), begun, limit=_WATCH_LIMIT)
        response = await self._send(request)
        try:
            buffer = b""
            async for chunk in response.content.iter_any():
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    if line:
                        yield _object(line)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ConnectionError(f"{request}: the watch ended: {error!r}") from error
        finally:
            response.close()

    async def _repeated(self, request: Request) -> Json:
        """A request that does no harm when it is sent twice: a few times, where there is no answer or a `not now`."""
        for number in range(RETRIES):
            try:
                return await self._once(request)
            except ApiError as error:
                if error.status not in _WAITING:
                    raise
                asked = error.retry_after or 0.0
            except ConnectionError:
                asked = 0.0
            jitter = 1 + random.random()  # noqa: S311 -- spreads requests, keeps no secret
            await self._sleep(min(MAX_PAUSE_SECONDS, max(asked, PAUSE_SECONDS * 2**number * jitter)))
        return await self._once(request)

    async def _once(self, request: Request) -> Json:
        response = await self._send(request)
        try:
            return _object(await response.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ConnectionError(f"{request}: the answer was cut off: {error!r}") from error
        finally:
            response.release()

    async def _send(self, request: Request) -> aiohttp.ClientResponse:
        """The response, of a status below 300."""
        started = self._clock()
        try:
            response = await self._call(request)
        except (aiohttp.ClientError, ApiException, OSError) as error:
            reason = "timeout" if isinstance(error, TimeoutError) else "connection"
            self._observer.request_failed(request.verb, request.resource, reason, self._clock() - started)
            raise ConnectionError(f"{request}: no answer: {error!r}") from error
        self._observer.request_done(request.verb, request.resource, str(response.status), self._clock() - started)
        if response.status < 300:
            return response
        try:
            body = await response.read()
        except (aiohttp.ClientError, TimeoutError):
            body = b""
        finally:
            response.release()
        raise error_of(response.status, body, str(request), retry_after=response.headers.get("Retry-After"))

    async def _call(self, request: Request) -> aiohttp.ClientResponse:
        method, url, headers, body, _ = await self._api.param_serialize(
            request.method,
            request.path,
            query_params=list(request.query.items()),
            header_params={"Accept": request.accept, "Content-Type": request.content},
            body=request.body,
            auth_settings=["BearerToken"],
        )
        answer = await self._api.call_api(method, url, headers, body, _request_timeout=request.limit)
        response: aiohttp.ClientResponse = answer.response
        return response


def _object(content: bytes) -> Json:
    try:
        value = deep_json.loads(content.decode())
    except ValueError as error:
        raise ConnectionError(f"the API server answered what is no JSON: {content[:200]!r}") from error
    if not isinstance(value, dict):
        raise ConnectionError(f"the API server answered no object: {content[:200]!r}")
    return value
