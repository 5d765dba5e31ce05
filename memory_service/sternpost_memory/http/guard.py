"""What stands before every route: the body's size, the caller's right, the request's metrics.

Pure ASGI, so that nothing of a request is read or parsed before its caller is known.
"""

from __future__ import annotations

import time

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sternpost_memory import limits
from sternpost_memory.errors import AuthorizationUnavailable
from sternpost_memory.http.auth import Authorizer, is_loopback
from sternpost_memory.http.problems import RETRY_AFTER, problem
from sternpost_memory.metrics import Metrics

PUBLIC = frozenset({"/healthz", "/readyz", "/metrics", "/openapi.json"})
"""Paths without data of any tenant."""
TOO_LARGE = f"the body has more than {limits.BODY_BYTES} bytes: send fewer observations at once"


class MeasureMiddleware:
    """Counts requests by route, method and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        began = time.perf_counter()

        async def send_and_see(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_see)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._metrics.requests.labels(method, route, str(status)).inc()
            self._metrics.request_seconds.labels(method, route).observe(time.perf_counter() - began)


METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})


class AuthMiddleware:
    """Lets a request through to its space, or answers 401, 403 or 503. A route that is not public is closed by default."""

    def __init__(self, app: ASGIApp, authorizer: Authorizer) -> None:
        self._app = app
        self._authorizer = authorizer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http" or scope["path"] in PUBLIC:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if not self._authorizer.needs_token and not _names_this_machine(headers.get("host", "")):
            # A web page that has its own name point to 127.0.0.1 would otherwise read everything through a browser.
            await problem(403, "without tokens the service answers to localhost only")(scope, receive, send)
            return
        try:
            grant = await self._authorizer.grant(headers.get("authorization", ""))
        except AuthorizationUnavailable:
            unavailable = problem(
                503, "tokens cannot be checked now: send the request again", kind="unchecked", headers=RETRY_AFTER
            )
            await unavailable(scope, receive, send)
            return
        if grant is None:
            response = problem(
                401, "send a valid token: `Authorization: Bearer TOKEN`", headers={"WWW-Authenticate": "Bearer"}
            )
            await response(scope, receive, send)
            return
        # The router matches the same decoded path, so it finds the same space.
        segments = scope["path"].split("/")
        if segments[1:3] == ["v1", "spaces"] and not grant.allows(segments[3] if len(segments) > 3 else ""):
            await problem(403, "this token is not bound to this space")(scope, receive, send)
            return
        scope.setdefault("state", {})["grant"] = grant
        await self._app(scope, receive, send)


class BodyLimitMiddleware:
    """Refuses a body that is too large, as soon as that is known."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced[:20]) > limits.BODY_BYTES:
            await problem(413, TOO_LARGE)(scope, receive, send)
            return
        received = 0

        async def receive_and_count() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limits.BODY_BYTES:
                raise HTTPException(413, TOO_LARGE)
            return message

        await self._app(scope, receive_and_count, send)


def _names_this_machine(host: str) -> bool:
    name, colon, port = host.rpartition(":")
    return is_loopback(name if colon and port.isdecimal() else host)
