"""Errors as `application/problem+json` (RFC 9457). What a caller sent is never repeated in them."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from sternpost_memory.errors import (
    KeyReused,
    StoreBusy,
    StoreConflict,
    StoreCorrupted,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from sternpost_memory.metrics import Metrics
from sternpost_memory.retrieval.search import BehindError

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = {"Retry-After": "1"}
SHOWN_ERRORS = 20

log = structlog.get_logger(__name__)

STORE_STATUS: dict[type[StoreError], int] = {
    StoreFull: 507,
    StoreBusy: 503,
    StoreUnavailable: 503,
    StoreConflict: 409,
    StoreCorrupted: 500,
}


def problem(
    status: int, detail: str, *, kind: str | None = None, headers: dict[str, str] | None = None, **more: Any
) -> JSONResponse:
    """A problem response; `kind` names it for programs, `detail` says the way out."""
    content = {
        "type": f"urn:sternpost:problem:{kind}" if kind else "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **more,
    }
    return JSONResponse(jsonable_encoder(content), status_code=status, headers=headers, media_type=MEDIA_TYPE)


def install(app: FastAPI, metrics: Metrics) -> None:
    """Have every error of the app answered with a problem."""

    async def http_error(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type alone
        return problem(error.status_code, str(error.detail), headers=dict(error.headers or {}))

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this type alone
        errors = [
            {"at": ".".join(str(part) for part in item["loc"]), "message": item["msg"]}
            for item in error.errors()[:SHOWN_ERRORS]
        ]
        first = errors[0]
        return problem(422, f"{first['at']}: {first['message']}", kind="invalid", errors=_printable(errors))

    async def store_error(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, StoreError)  # noqa: S101 - registered for this type alone
        name = type(error).__name__
        metrics.store_errors.labels(name).inc()
        log.error("a request failed because of the store", error=str(error), kind=name)
        status = STORE_STATUS.get(type(error), 503)
        # The message names paths of this machine, which are for whoever runs it.
        return problem(
            status,
            STORE_DETAIL.get(type(error), "the store cannot be used now; see the service's log"),
            kind=name,
            headers=RETRY_AFTER if status in {503, 507} else None,
        )

    async def key_reused(_: Request, error: Exception) -> JSONResponse:
        return problem(422, str(error), kind="idempotency-key-reused")

    async def behind(_: Request, error: Exception) -> JSONResponse:
        return problem(409, str(error), kind="behind", headers=RETRY_AFTER)

    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        return problem(500, f"an error in the service ({type(error).__name__}); see its log")

    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(StoreError, store_error)
    app.add_exception_handler(KeyReused, key_reused)
    app.add_exception_handler(BehindError, behind)
    app.add_exception_handler(Exception, unexpected)


STORE_DETAIL: dict[type[StoreError], str] = {
    StoreFull: "no space left in the store: nothing of this request was kept, nothing that was acknowledged before is "
    "lost; free space, then send it again",
    StoreBusy: "the store is busy: nothing of this request was kept; send it again",
    StoreCorrupted: "the store is damaged; see the service's log for the way out",
}


def _printable(errors: list[dict[str, str]]) -> list[dict[str, str]]:
    # A location may hold a key of the body, with characters that no UTF-8 can be made of.
    return [{key: value.encode("utf-8", "replace").decode() for key, value in item.items()} for item in errors]
