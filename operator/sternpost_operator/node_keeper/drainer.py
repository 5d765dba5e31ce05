"""Drains nodes that Sternpost cordoned, through the Eviction API: PodDisruptionBudgets have the last word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from sternpost_operator.cluster.base import RefusedError
from sternpost_operator.cluster.kubernetes.client import KubernetesClient
from sternpost_operator.cluster.kubernetes.errors import ApiError, NotFoundError, VersionConflictError
from sternpost_operator.cluster.kubernetes.paths import PODS
from sternpost_operator.node_keeper.drain import Candidate, Json, describe, plan_drain

_logger = structlog.get_logger(__name__)

FIRST_PAUSE_SECONDS = 5.0
MAX_PAUSE_SECONDS = 60.0
DONE_PAUSE_SECONDS = 300.0
"""A drained node is looked at again after so long: somebody may have tolerated the taint."""
AT_ONCE = 20
"""Evictions in one round."""
_PAGE = 500
_TOO_MANY = 429
_BUDGET = "disruption budget"


@dataclass
class _Progress:
    next_at: float
    pause: float = FIRST_PAUSE_SECONDS
    blocked: str = ""


class Drainer:
    """Where each node's drain stands; forgotten with the process, as asking again does no harm. `clock` is monotonic seconds."""

    def __init__(self, client: KubernetesClient, clock: Callable[[], float]) -> None:
        self._client = client
        self._clock = clock
        self._nodes: dict[str, _Progress] = {}

    def forget_others(self, nodes: frozenset[str]) -> None:
        """Only `nodes` are to be drained."""
        self._nodes = {name: progress for name, progress in self._nodes.items() if name in nodes}

    @property
    def blocked(self) -> dict[str, str]:
        """Why drains do not get on, by node."""
        return {name: progress.blocked for name, progress in self._nodes.items() if progress.blocked}

    @property
    def next_in(self) -> float | None:
        """Seconds until a node is to be looked at again."""
        times = [progress.next_at for progress in self._nodes.values()]
        return max(0.0, min(times) - self._clock()) if times else None

    async def step(self, node: str) -> str:
        """Bring one node's drain on, if it is time to; what came of it: `done`, `blocked`, or nothing new to tell.

        Raises `OSError` where the API server does not answer.
        """
        progress = self._nodes.setdefault(node, _Progress(self._clock()))
        if self._clock() < progress.next_at:
            return ""
        # Whatever happens now, the server is not asked again at once.
        progress.next_at = self._clock() + progress.pause
        found = plan_drain(await self._pods_of(node))
        blocked: dict[Candidate, str] = {}
        for candidate in found.evict[:AT_ONCE]:
            why = await self._evict(candidate)
            if why:
                blocked[candidate] = why
        before, progress.blocked = progress.blocked, describe(blocked, found.homeless)
        if progress.blocked:
            progress.pause = min(progress.pause * 2, MAX_PAUSE_SECONDS)
        else:
            progress.pause = DONE_PAUSE_SECONDS if found.is_done else FIRST_PAUSE_SECONDS
        progress.next_at = self._clock() + progress.pause
        if progress.blocked:
            return "blocked" if progress.blocked != before else ""
        return "done" if found.is_done else ""

    async def _pods_of(self, node: str) -> list[Json]:
        found: list[Json] = []
        query = {"fieldSelector": f"spec.nodeName={node}", "limit": str(_PAGE)}
        while True:
            page = await self._client.list(PODS, None, query)
            found += page.get("items") or []
            following = (page.get("metadata") or {}).get("continue")
            if not following:
                return found
            query = {**query, "continue": following}

    async def _evict(self, pod: Candidate) -> str:
        """Why it is not evicted; empty if it is, or is gone."""
        try:
            await self._client.post(PODS, pod.namespace, pod.name, "eviction", pod.eviction)
        except (NotFoundError, VersionConflictError):
            return ""
        except RefusedError as error:
            return _words(error)
        except ApiError as error:
            # More than one budget for a Pod is an error of the server's own kind.
            if _BUDGET in str(error).lower() or error.status == _TOO_MANY:
                return _words(error)
            raise
        _logger.info("evicted", pod=str(pod))
        return ""


def _words(error: Exception) -> str:
    """The server's words, without the request."""
    return str(error).split(": ", 1)[-1].rstrip(".")
