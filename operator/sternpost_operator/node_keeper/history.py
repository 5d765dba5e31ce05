"""How often nodes were excluded before, by whatever job, as the memory service tells."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import structlog

_logger = structlog.get_logger(__name__)

ATTRIBUTE = "excluded"
"""The attribute of the incident of an exclusion, a fact about the node."""
PATIENCE_SECONDS = 1.0
"""The longest that a recovery waits for an answer."""
KEPT_SECONDS = 300.0
"""An answer is used for so long."""
BACK_OFF_SECONDS = 30.0
"""A service that did not answer is not asked again for so long."""
REMEMBERED_SECONDS = 90 * 86_400.0
"""Exclusions older than this do not count any more: machines are repaired."""
AT_ONCE = 8
MAX_NODES = 64
"""Nodes asked about at once; the others count as unknown."""
MAX_KEPT = 10_000
_PAGE = 200
_MAX_PAGES = 5

Authorization = Callable[[], Awaitable[Mapping[str, str]]]


@dataclass(frozen=True)
class _Answer:
    count: int
    at: float


class NodeHistory:
    """Asks the memory service, never for long, and keeps the answers for some minutes.

    `authorization` gives the headers of a request; it may raise `OSError` or `ValueError`. `clock` is monotonic seconds,
    `now` Unix seconds.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        authorization: Authorization | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._authorization = authorization
        self._clock = clock
        self._now = now
        self._answers: dict[tuple[str, str, str], _Answer] = {}
        self._not_before: dict[str, float] = {}

    async def of(self, url: str, space: str, nodes: Collection[str]) -> dict[str, int]:
        """Earlier exclusions by node, of those for which they are known within `PATIENCE_SECONDS`. Raises nothing."""
        base = url.rstrip("/")
        now = self._clock()
        known = {node: self._answers.get((base, space, node)) for node in nodes}
        stale = [node for node, answer in sorted(known.items()) if answer is None or now - answer.at > KEPT_SECONDS]
        if base and stale and now >= self._not_before.get(base, 0.0):
            await self._ask(base, space, stale[:MAX_NODES])
        found = {node: self._answers.get((base, space, node)) for node in nodes}
        return {node: answer.count for node, answer in found.items() if answer is not None}

    async def _ask(self, base: str, space: str, nodes: Collection[str]) -> None:
        gate = asyncio.Semaphore(AT_ONCE)

        async def ask(node: str) -> None:
            async with gate:
                self._keep((base, space, node), await self._count(base, space, node))

        try:
            async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
                for node in nodes:
                    tasks.create_task(ask(node))
        except* (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as group:
            # An old answer is better than none, and is used.
            self._not_before[base] = self._clock() + BACK_OFF_SECONDS
            _logger.warning("node history not known", url=base, nodes=len(nodes), error=repr(group.exceptions[0]))

    async def _count(self, base: str, space: str, node: str) -> int:
        headers = dict(await self._authorization()) if self._authorization else {}
        query = {"entity": f"node/{node}", "attribute": ATTRIBUTE, "history": "true", "limit": str(_PAGE)}
        oldest = self._now() - REMEMBERED_SECONDS
        count = 0
        for _ in range(_MAX_PAGES):
            response = await self._client.get(
                f"{base}/v1/spaces/{space}/facts", params=query, headers=headers, timeout=PATIENCE_SECONDS
            )
            response.raise_for_status()
            facts, following = _page(response.json())
            count += sum(since >= oldest for since in facts)
            if following is None:
                break
            query = {**query, "cursor": following}
        return count

    def _keep(self, key: tuple[str, str, str], count: int) -> None:
        if len(self._answers) >= MAX_KEPT:
            self._answers.clear()
        self._answers[key] = _Answer(count, self._clock())


def _page(value: Any) -> tuple[list[float], str | None]:
    """When each fact of an answer began, and the cursor of the next page. Raises `ValueError` for anything else."""
    facts = value.get("facts") if isinstance(value, dict) else None
    if not isinstance(facts, list):
        raise ValueError("the memory service answered no page of facts")  # noqa: TRY004 -- what came is at fault
    since = [fact.get("validFrom") for fact in facts if isinstance(fact, dict)]
    following = value.get("next")
    return (
        [float(at) for at in since if isinstance(at, (int, float))],
        following if isinstance(following, str) and following else None,
    )
