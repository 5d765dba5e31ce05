"""What an answer of the API server means. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sternpost_operator.cluster.base import RefusedError

MAX_MESSAGE = 2048
"""Characters of the server's own message that are passed on."""


class ApiError(OSError):
    """The API server did not do it: it is overloaded, starting, or refuses this client. Trying again may help."""

    def __init__(self, status: int, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        """Seconds that the server asks to wait."""


class NotFoundError(ApiError):
    """There is no such object."""


class ExistsError(ApiError):
    """An object of that name is there already."""


class VersionConflictError(ApiError):
    """The object is not the one, or not the version, that was asked for."""


class RefusedByServerError(RefusedError):
    """The API server understood and does not take it."""


def error_of(status: int, body: bytes, what: str, *, retry_after: str | None = None) -> OSError:
    """The error for an answer of 300 or more; `what` is the request, for the message."""
    answer = _answer(body)
    message = f"{what}: {_message(answer) or f'HTTP {status}'}"
    match status, answer.get("reason"):
        case 404, _:
            return NotFoundError(status, message)
        case 409, "AlreadyExists":
            return ExistsError(status, message)
        case 409, _:
            return VersionConflictError(status, message)
        case ((400 | 403 | 405 | 413 | 415 | 422), _):
            return RefusedByServerError(_message(answer) or message)
        case _:
            return ApiError(status, message, retry_after=_seconds(retry_after))


def _answer(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) and value.get("kind") == "Status" else {}


def _message(answer: Mapping[str, Any]) -> str:
    """The server's message. It names the fields already where the whole object was judged; else they are added."""
    message = str(answer.get("message") or "")[:MAX_MESSAGE]
    details = answer.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    fields = [
        str(cause["field"])
        for cause in (causes if isinstance(causes, list) else [])
        if isinstance(cause, dict) and cause.get("field") and str(cause["field"]) not in message
    ]
    return f"{message} (fields: {', '.join(fields)})"[:MAX_MESSAGE] if fields else message


def _seconds(text: str | None) -> float | None:
    try:
        return max(0.0, float(text)) if text else None
    except ValueError:
        return None
