"""From the incident of an exclusion, through the real memory service, to the count of exclusions: writer, store, reader."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import httpx
import pytest
from memory_store_conformance import drain

from sternpost_memory.consolidation.deterministic import DeterministicEngine
from sternpost_memory.consolidation.policy import Policy
from sternpost_memory.consolidation.worker import Worker
from sternpost_memory.http.app import create_app
from sternpost_memory.http.auth import TokenAuthorizer
from sternpost_memory.http.service import Service
from sternpost_memory.metrics import Metrics
from sternpost_memory.store.sqlite import SqliteStore
from sternpost_operator.cluster.memory_client import observation
from sternpost_operator.node_keeper.history import NodeHistory
from sternpost_operator.resources.training_job_status import Incident

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
URL = "http://memory"
TOKEN = {"Authorization": "Bearer token-of-the-operator"}


@pytest.fixture
def store(tmp_path):
    store = SqliteStore(tmp_path / "memory.db")
    yield store
    store.close()


def test_each_exclusion_counts_once_and_nothing_else_does(store):
    metrics = Metrics()
    clock = NOW.timestamp
    worker = Worker(store, DeterministicEngine(), policy=Policy(), metrics=metrics, clock=clock)
    service = Service(store=store, worker=worker, metrics=metrics, clock=clock)
    app = create_app(service, TokenAuthorizer({"token-of-the-operator": frozenset({"*"})}))
    incidents = [
        Incident(id="a-1", at=NOW, text="lost", node="node-1", cause="NodeLost"),
        Incident(id="a-1-excluded", at=NOW, text="excluded", node="node-1", excluded="NodeLost"),
        Incident(id="b-7-excluded", at=NOW, text="excluded by another job", node="node-1", excluded="NodeLost"),
        Incident(id="b-8", at=NOW, text="left", node="node-2", cause="NodeLeaving"),
    ]

    async def scenario():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=URL) as client:
            for incident in [*incidents, incidents[1]]:  # told twice, as after a lost answer
                answer = await client.post(
                    "/v1/spaces/default/observations",
                    json=observation("gpt", incident),
                    headers={"Idempotency-Key": incident.id, **TOKEN},
                )
                assert answer.status_code == 202, answer.text
            drain(store, "default")

            async def authorization():
                return TOKEN

            history = NodeHistory(client, authorization, now=lambda: NOW.timestamp() + 60)
            return await history.of(URL, "default", ["node-1", "node-2", "node-3"])

    assert asyncio.run(scenario()) == {"node-1": 2, "node-2": 0, "node-3": 0}
