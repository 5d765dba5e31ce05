"""The checkpoint sidecar's own page: what is committed."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from sternpost_eagle_eye.collect.fetch import fetch_page
from sternpost_eagle_eye.collect.page import parse_page
from sternpost_eagle_eye.vector import CheckpointVector, PageState

PERIOD_SECONDS = 2.0
ABSENT_SECONDS = 10.0
"""Before asking again where nobody listened: most jobs have either the sidecar from the start or none."""


class CheckpointCollector:
    """Asks less often than the trainer is asked: commits are rare."""

    def __init__(self, client: httpx.AsyncClient, port: int | None, monotonic: Callable[[], float]) -> None:
        self._client = client
        self._port = port
        self._monotonic = monotonic
        self._next = 0.0
        self._last: CheckpointVector | None = None

    async def collect(self) -> CheckpointVector | None:
        """What the page said last; None before it said anything."""
        now = self._monotonic()
        if self._port is None or now < self._next:
            return self._last
        state, text = await fetch_page(self._client, f"http://127.0.0.1:{self._port}/metrics")
        self._next = now + (ABSENT_SECONDS if state is PageState.NONE else PERIOD_SECONDS)
        if state is PageState.OK:
            page = parse_page(text)
            self._last = CheckpointVector(
                committed_step=page.count("sternpost_checkpoint_committed_step"),
                committed_at=page.finite("sternpost_checkpoint_committed_timestamp_seconds"),
                raw_bytes=page.total("sternpost_checkpoint_raw_bytes_total"),
                stored_bytes=page.total("sternpost_checkpoint_stored_bytes_total"),
                problem=(page.chosen("sternpost_checkpoint_problem", "reason") or "")[:512] or None,
            )
        return self._last
