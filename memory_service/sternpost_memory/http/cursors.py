"""Cursors: where the next page begins, opaque to the caller."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TypeVar

from fastapi import HTTPException
from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")


def encode(place: object) -> str:
    """A place in a listing as text for a URL."""
    return base64.urlsafe_b64encode(json.dumps(place, separators=(",", ":")).encode()).decode().rstrip("=")


def decode(cursor: str, kind: TypeAdapter[T]) -> T:
    """The place that `encode` was given.

    Raises:
        HTTPException: 422, it is not a cursor of this listing.
    """
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        return kind.validate_json(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (UnicodeEncodeError, binascii.Error, ValidationError) as error:
        raise HTTPException(422, "cursor: not one that this listing gave; leave it out to begin anew") from error
