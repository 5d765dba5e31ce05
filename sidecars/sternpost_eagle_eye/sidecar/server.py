"""The sidecar's HTTP server."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from sternpost_eagle_eye.config import ConfigError, Settings
from sternpost_eagle_eye.sidecar.court import Court
from sternpost_eagle_eye.sidecar.own_metrics import OwnMetrics
from sternpost_eagle_eye.sidecar.progress_stream import Pace, progress_lines
from sternpost_eagle_eye.sidecar.token import TokenFile
from sternpost_eagle_eye.vector import MAX_VECTOR_BYTES, Vector

_TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
    422: "Unprocessable Content",
}


def problem(status: int, detail: str, **more: object) -> Response:
    """RFC 9457."""
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    content = {"type": "about:blank", "title": _TITLES.get(status, "Error"), "status": status, "detail": detail, **more}
    return JSONResponse(content, status, headers=headers, media_type="application/problem+json")


VANISHED_MILLISECONDS = 20_000
"""What is sent and not acknowledged for so long ends the connection."""
NOT_JUDGING = "this is not worker 0 of a running attempt"
DEFAULT_PACE = Pace()

Endpoint = Callable[[Request], Awaitable[Response]]


def make_app(court: Court, token: TokenFile, metrics: OwnMetrics, pace: Pace = DEFAULT_PACE) -> Starlette:
    """`/v1` wants the token, the rest does not."""

    def guarded(endpoint: Endpoint) -> Endpoint:
        async def checked(request: Request) -> Response:
            if not token.admits(request.headers.get("authorization", "")):
                return problem(401, "the job's bearer token is missing or wrong")
            return await endpoint(request)

        return checked

    async def vectors(request: Request) -> Response:
        response = await _take_vector(request, court)
        metrics.vectors.labels({204: "accepted", 409: "stale"}.get(response.status_code, "refused")).inc()
        return response

    async def progress(_request: Request) -> Response:
        report = court.progress()
        if report is None:
            return problem(404, NOT_JUDGING)
        return Response(report.to_json(), media_type="application/json")

    async def progress_stream(_request: Request) -> Response:
        if court.session is None:
            return problem(404, NOT_JUDGING)

        async def counted() -> AsyncIterator[bytes]:
            with metrics.streams.track_inprogress():
                async for line in progress_lines(court, pace):
                    yield line

        return StreamingResponse(counted(), media_type="application/x-ndjson")

    async def own_metrics(_request: Request) -> Response:
        return Response(generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def refused(_request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return problem(status, error.detail if isinstance(error, HTTPException) else "internal error")

    return Starlette(
        routes=[
            Route("/v1/vectors", guarded(vectors), methods=["POST"]),
            Route("/v1/progress", guarded(progress), methods=["GET"]),
            Route("/v1/progress/stream", guarded(progress_stream), methods=["GET"]),
            Route("/metrics", own_metrics, methods=["GET"]),
            Route("/healthz", healthz, methods=["GET"]),
        ],
        exception_handlers={HTTPException: refused},
    )


async def _take_vector(request: Request, court: Court) -> Response:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_VECTOR_BYTES:
                return problem(413, f"a vector has at most {MAX_VECTOR_BYTES} bytes")
    except ClientDisconnect:
        return problem(400, "the sender went away")
    try:
        vector = Vector.model_validate_json(bytes(body))
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_input=False, include_context=False)[0]
        return problem(422, f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}")
    reason = court.take(vector)
    if reason is not None:
        current = court.attempt.spec.id if court.attempt is not None else None
        return problem(409, reason, attempt=current)
    return Response(status_code=204)


class Server(uvicorn.Server):
    """Leaves the signals to the service."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Overrides uvicorn's own handlers, which would end the process by raising the signal again."""
        yield


def listen(settings: Settings) -> socket.socket:
    """Bind before anything else, so that a port that is taken is one clear ConfigError."""
    try:
        family = socket.AF_INET6 if ":" in settings.listen_host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Connections inherit it: a listener that vanished without a word does not hold its stream for long.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, VANISHED_MILLISECONDS)
            listener.bind((settings.listen_host, settings.port))
            listener.listen(1024)
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"cannot listen on port {settings.port} of {settings.listen_host}: {error.strerror}; "
            "free it, or give the sidecar another STERNPOST_PORT_EAGLE_EYE"
        ) from error
    return listener


def make_server(app: Starlette) -> Server:
    """Without logs of its own, and quick to stop."""
    return Server(
        uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=1,
        )
    )
