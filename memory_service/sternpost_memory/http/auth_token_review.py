"""Kubernetes service accounts: a token is shown to the API server once a minute, not with every request."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from prometheus_client import Counter

from sternpost_memory.errors import AuthorizationUnavailable
from sternpost_memory.http.auth import Grant, bearer
from sternpost_memory.http.grants import Grants, Identity
from sternpost_memory.limits import KIB

GRANTED_SECONDS = 60.0
"""A token that was good is believed for so long; also while the API server is away."""
REFUSED_SECONDS = 5.0
REMEMBERED = 4096
"""Tokens of each kind that are remembered."""
REVIEWS_AT_ONCE = 16
"""Further callers are sent away to come again: tokens made up by someone shall not keep the API server busy."""
TOKEN_BYTES = 16 * KIB


class Reviewer(Protocol):
    """Says whose token it is."""

    async def review(self, token: str) -> Identity | None:
        """None if the token is not valid; raises `AuthorizationUnavailable` if nobody can say."""
        ...


class _Remembered:
    """Verdicts by the hash of a token, for some seconds, the oldest thrown away where there are too many."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._verdicts: OrderedDict[bytes, tuple[float, Grant | None]] = OrderedDict()

    def put(self, digest: bytes, grant: Grant | None) -> None:
        self._verdicts.pop(digest, None)
        self._verdicts[digest] = (self._clock() + self._seconds, grant)
        if len(self._verdicts) > REMEMBERED:
            self._verdicts.popitem(last=False)

    def get(self, digest: bytes) -> tuple[bool, Grant | None]:
        """Whether there is a verdict, and which."""
        until, grant = self._verdicts.get(digest, (0.0, None))
        if self._clock() < until:
            return True, grant
        self._verdicts.pop(digest, None)
        return False, None


class TokenReviewAuthorizer:
    """Grants what the grants file says to whoever the API server knows by their token."""

    needs_token = True

    def __init__(
        self,
        reviewer: Reviewer,
        grants: Grants,
        *,
        counter: Counter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reviewer = reviewer
        self._grants = grants
        self._counter = counter
        # Apart, so that made-up tokens cannot push out good ones.
        self._granted = _Remembered(GRANTED_SECONDS, clock)
        self._refused = _Remembered(REFUSED_SECONDS, clock)
        self._running: dict[bytes, asyncio.Task[Grant | None]] = {}

    async def grant(self, authorization: str) -> Grant | None:
        """See `Authorizer.grant`."""
        token = bearer(authorization)
        if not token or len(token) > TOKEN_BYTES or not token.isascii() or not token.isprintable():
            return None
        digest = hashlib.sha256(token.encode()).digest()
        for remembered in (self._granted, self._refused):
            known, grant = remembered.get(digest)
            if known:
                return grant
        task = self._running.get(digest)
        if task is None:
            if len(self._running) >= REVIEWS_AT_ONCE:
                raise AuthorizationUnavailable("too many tokens are being checked at this moment")
            task = asyncio.create_task(self._review(token, digest))
            self._running[digest] = task
            task.add_done_callback(lambda done: self._ended(digest, done))
        # Many requests may wait for it: one that is given up does not end it for the others.
        return await asyncio.shield(task)

    async def _review(self, token: str, digest: bytes) -> Grant | None:
        try:
            identity = await self._reviewer.review(token)
        except AuthorizationUnavailable:
            self._count("unavailable")
            raise
        grant = self._grants.of(identity) if identity is not None else None
        good = grant is not None and bool(grant.spaces)
        self._count("granted" if good else "refused")
        (self._granted if good else self._refused).put(digest, grant)
        return grant

    def _ended(self, digest: bytes, task: asyncio.Task[Grant | None]) -> None:
        self._running.pop(digest, None)
        if not task.cancelled():
            # Looked at, so that nothing is said of it where nobody waits any more.
            task.exception()

    def _count(self, result: str) -> None:
        if self._counter is not None:
            self._counter.labels(result).inc()
