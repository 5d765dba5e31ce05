"""Earlier exclusions, asked of the memory service."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from sternpost_operator.node_keeper import history
from sternpost_operator.node_keeper.history import NodeHistory

NOW = 1_764_000_000.0
DAY = 86_400.0


class Service:
    """A memory service behind a transport."""

    def __init__(self) -> None:
        self.facts: dict[str, list[float]] = {}
        self.requests: list[httpx.Request] = []
        self.answer: Any = None
        self.clock = 0.0

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.answer is not None:
            return self.answer(request)
        query = request.url.params
        since = self.facts.get(query["entity"].removeprefix("node/"), [])
        first, limit = int(query.get("cursor", 0)), int(query["limit"])
        page = [{"validFrom": at, "attribute": query["attribute"]} for at in since[first : first + limit]]
        following = str(first + limit) if first + limit < len(since) else None
        return httpx.Response(200, json={"facts": page, "next": following})

    def ask(self, *nodes: str, kept: NodeHistory | None = None, **options: Any) -> dict[str, int]:
        async def scenario() -> dict[str, int]:
            async with httpx.AsyncClient(transport=httpx.MockTransport(self.handle)) as client:
                made = kept or self.history(**options)
                made._client = client
                return await made.of("http://memory:8765/", "default", nodes)

        return asyncio.run(scenario())

    def history(self, **options: Any) -> NodeHistory:
        return NodeHistory(httpx.AsyncClient(), clock=lambda: self.clock, now=lambda: NOW, **options)


def test_exclusions_are_counted_by_node():
    service = Service()
    service.facts = {"node-1": [NOW - DAY, NOW - 2 * DAY], "node-2": []}
    assert service.ask("node-1", "node-2") == {"node-1": 2, "node-2": 0}
    url = service.requests[0].url
    assert url.path == "/v1/spaces/default/facts"
    assert dict(url.params) == {"entity": "node/node-1", "attribute": "excluded", "history": "true", "limit": "200"}


def test_old_ones_do_not_count_and_pages_are_followed():
    service = Service()
    service.facts = {"node-1": [NOW - 100 * DAY] * 150 + [NOW - DAY] * 100}
    assert service.ask("node-1") == {"node-1": 100}
    assert len(service.requests) == 2


def test_an_endless_history_is_cut():
    service = Service()
    service.facts = {"node-1": [NOW] * 5000}
    assert service.ask("node-1") == {"node-1": 1000}


def test_answers_are_kept_for_a_while():
    service = Service()
    kept = service.history()
    service.facts = {"node-1": [NOW]}
    assert service.ask("node-1", kept=kept) == {"node-1": 1}
    service.facts = {"node-1": [NOW, NOW]}
    service.clock = 299
    assert service.ask("node-1", kept=kept) == {"node-1": 1}
    service.clock = 301
    assert service.ask("node-1", kept=kept) == {"node-1": 2}


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: httpx.Response(503),
        lambda _: httpx.Response(200, content=b"no json"),
        lambda _: httpx.Response(200, json=[]),
        lambda _: httpx.Response(200, json={"facts": None}),
    ],
)
def test_a_service_that_is_away_is_unknown_and_not_asked_again_at_once(answer):
    service = Service()
    kept = service.history()
    service.facts = {"node-1": [NOW]}
    assert service.ask("node-1", kept=kept) == {"node-1": 1}
    service.clock, service.answer = 301, answer
    # What was known before is better than nothing.
    assert service.ask("node-1", "node-2", kept=kept) == {"node-1": 1}
    asked = len(service.requests)
    service.clock, service.answer = 320, None
    assert service.ask("node-1", "node-2", kept=kept) == {"node-1": 1}
    assert len(service.requests) == asked
    service.clock = 340
    assert service.ask("node-1", "node-2", kept=kept) == {"node-1": 1, "node-2": 0}


def test_a_slow_service_does_not_keep_a_recovery_waiting(monkeypatch):
    monkeypatch.setattr(history, "PATIENCE_SECONDS", 0.05)

    async def scenario():
        async def slow(_request):
            await asyncio.Event().wait()

        async with httpx.AsyncClient(transport=httpx.MockTransport(slow)) as client:
            return await asyncio.wait_for(NodeHistory(client).of("http://memory", "default", ["node-1"]), 5)

    assert asyncio.run(scenario()) == {}


def test_without_a_service_nobody_is_asked():
    async def scenario():
        async with httpx.AsyncClient() as client:
            return await NodeHistory(client).of("", "default", ["node-1"])

    assert asyncio.run(scenario()) == {}


def test_the_token_goes_along_and_a_missing_one_is_no_error():
    service = Service()

    async def bearer():
        return {"Authorization": "Bearer secret"}

    service.ask("node-1", authorization=bearer)
    assert service.requests[-1].headers["Authorization"] == "Bearer secret"

    async def missing():
        raise FileNotFoundError("no token")

    assert service.ask("node-1", authorization=missing) == {}


def test_so_many_nodes_are_asked_about_and_no_more():
    service = Service()
    found = service.ask(*(f"node-{number}" for number in range(100)))
    assert len(found) == history.MAX_NODES
