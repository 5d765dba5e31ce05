"""Incidents on their way: an exclusion goes to the tenant's space and to the platform's, and is taken when both have it."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import httpx
import pytest
from prometheus_client import CollectorRegistry

from sternpost_operator.cluster.kubernetes.incidents import IncidentSender
from sternpost_operator.cluster.kubernetes.letters import Letter, packed, unpacked
from sternpost_operator.cluster.kubernetes.memory_spaces import MemorySpaces
from sternpost_operator.cluster.kubernetes.outbox import Outbox
from sternpost_operator.cluster.memory_client import MemoryClient
from sternpost_operator.metrics.operator_metrics import OperatorMetrics
from sternpost_operator.resources.base import ObjectMeta
from sternpost_operator.resources.training_job import TrainingJob, TrainingJobSpec
from sternpost_operator.resources.training_job_status import Incident

AT = datetime(2026, 1, 1, tzinfo=UTC)
EXCLUSION = Incident(id="u-1-Excluded-node-1", at=AT, text="left node-1", node="node-1", excluded="SlowNode")
PLAIN = Incident(id="u-1-RankFailed", at=AT, text="a rank failed", node="node-1", cause="RankFailed")


class NoOutbox(Outbox):
    """Holds nothing: the incidents here are those of jobs that are there."""

    def __init__(self) -> None:
        pass

    async def load(self) -> list[Letter]:
        return []

    async def save(self, letters: object) -> None:
        pass


def job() -> TrainingJob:
    template = {"spec": {"containers": [{"name": "trainer", "command": ["true"]}]}}
    return TrainingJob(
        metadata=ObjectMeta(name="gpt", namespace="team-a", uid="u"), spec=TrainingJobSpec(workers=1, template=template)
    )


async def told(incident: Incident, *, refuses: str = "") -> tuple[list[tuple[str, list[str]]], frozenset[str]]:
    """Spaces and entities in the order in which they were told, and what counts as taken."""
    requests: list[tuple[str, list[str]]] = []
    done = asyncio.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        space = request.url.path.split("/")[3]
        requests.append((space, json.loads(request.content)["observations"][0]["entities"]))
        if space == (refuses or "sternpost-system"):
            done.set()
        return httpx.Response(503 if space == refuses else 202)

    taken = asyncio.Event()
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        sender = IncidentSender(
            MemoryClient(client),
            NoOutbox(),
            spaces=MemorySpaces("http://memory.example", "sternpost-system"),
            observer=OperatorMetrics(CollectorRegistry()),
            on_taken=lambda _: taken.set(),
        )
        sender.offer(job(), incident)
        running = asyncio.create_task(sender.run())
        await (done if refuses else taken).wait()
        running.cancel()
        return requests, sender.taken("u")


def test_an_exclusion_is_told_to_the_tenant_and_to_the_platform() -> None:
    requests, taken = asyncio.run(told(EXCLUSION))
    assert requests == [("team-a", ["node/node-1", "job/gpt"]), ("sternpost-system", ["node/node-1", "job/team-a/gpt"])]
    assert taken == {EXCLUSION.id}


def test_anything_else_is_the_tenants_own() -> None:
    requests, taken = asyncio.run(told(PLAIN))
    assert [space for space, _ in requests] == ["team-a"]
    assert taken == {PLAIN.id}


@pytest.mark.parametrize("space", ["team-a", "sternpost-system"])
def test_it_is_taken_only_when_both_have_it(space: str) -> None:
    _, taken = asyncio.run(told(EXCLUSION, refuses=space))
    assert taken == frozenset()


@pytest.mark.parametrize("platform", ["sternpost-system", ""])
def test_the_outbox_keeps_where_a_letter_goes(platform: str) -> None:
    letters = [Letter("http://m", "team-a", platform, "team-a", "gpt", "u", EXCLUSION)]
    assert unpacked(packed(letters)) == letters
