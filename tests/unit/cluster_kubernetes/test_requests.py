"""The client, the Pods and the Attempt against an API server that answers as it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from fake_api_server import Answer, Asked, Behaviour, CutError, FakeApiServer
from kubernetes.aio.client.configuration import Configuration
from prometheus_client import CollectorRegistry

from sternpost_operator.cluster.base import ConflictError, RefusedError
from sternpost_operator.cluster.kubernetes.attempts import Attempts
from sternpost_operator.cluster.kubernetes.client import RETRIES, KubernetesClient
from sternpost_operator.cluster.kubernetes.errors import ExistsError, NotFoundError
from sternpost_operator.cluster.kubernetes.inventory import Inventory
from sternpost_operator.cluster.kubernetes.owned import OwnedObjects
from sternpost_operator.cluster.kubernetes.paths import ATTEMPTS, PODS
from sternpost_operator.cluster.kubernetes.pods import Pods
from sternpost_operator.manifests.images import Images
from sternpost_operator.manifests.worker_pod import build_pod
from sternpost_operator.metrics.operator_metrics import OperatorMetrics
from sternpost_operator.recovery.actions import CreatePod, DeletePod
from sternpost_operator.resources.attempt import AttemptAction, AttemptSpec

T = TypeVar("T")


def whole(status: int, **body: Any) -> Behaviour:
    async def answer(_: Asked, response: Answer) -> None:
        await response.whole(status, body)

    return answer


def failure(status: int, reason: str) -> Behaviour:
    return whole(status, kind="Status", reason=reason, message=f"{reason}!")


async def cut(_: Asked, response: Answer) -> None:
    raise CutError


class Bench:
    """A client of a fake server; its pauses take no time."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self.server = FakeApiServer(*behaviours)
        self.registry = CollectorRegistry()
        self.inventory = Inventory()
        self.pauses: list[float] = []
        self.now = 0.0

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def run(self, work: Any) -> Any:
        async def go() -> Any:
            async with self.server.running():
                configuration = Configuration(host=self.server.url)
                client = KubernetesClient(configuration, OperatorMetrics(self.registry), sleep=self._pause)
                try:
                    return await asyncio.wait_for(work(client), 20)
                finally:
                    await client.aclose()

        return asyncio.run(go())

    def pods(self, client: KubernetesClient) -> Pods:
        return Pods(client, self.inventory, Images.of_version("1"), build_pod, lambda: self.now)


def test_reading_is_repeated_a_few_times() -> None:
    bench = Bench(failure(503, "Busy"), failure(429, "Busy"), whole(200, kind="Pod"))
    assert bench.run(lambda client: client.get(PODS, "team", "gpt-0")) == {"kind": "Pod"}
    assert len(bench.server.asked) == 3
    assert len(bench.pauses) == 2
    errors = bench.registry.get_sample_value(
        "sternpost_operator_api_errors_total", {"verb": "get", "resource": "pods", "reason": "server"}
    )
    assert errors == 1


def test_a_server_that_is_away_is_an_error_of_the_operating_systems_kind() -> None:
    bench = Bench(cut)
    with pytest.raises(OSError, match="no answer"):
        bench.run(lambda client: client.get(PODS, "team", "gpt-0"))
    assert len(bench.server.asked) >= RETRIES + 1


def test_writing_is_not_repeated() -> None:
    bench = Bench(failure(503, "Busy"))
    with pytest.raises(OSError, match="Busy"):
        bench.run(lambda client: client.create(PODS, "team", {"metadata": {"name": "x"}}))
    [asked] = bench.server.asked
    assert asked.query == {"fieldManager": "sternpost-operator", "fieldValidation": "Strict"}


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (failure(409, "AlreadyExists"), ExistsError),
        (failure(404, "NotFound"), NotFoundError),
        (failure(422, "Invalid"), RefusedError),
    ],
)
def test_answers_become_errors(answer: Behaviour, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        Bench(answer).run(lambda client: client.create(PODS, "team", {}))


def test_a_deletion_carries_the_uid_and_the_grace() -> None:
    bench = Bench(whole(200, kind="Pod", metadata={"name": "gpt-0", "uid": "u"}))
    bench.run(lambda client: bench.pods(client).delete("team", DeletePod("gpt-0", "u", 7.6)))
    [asked] = bench.server.asked
    body = json.loads(asked.body)
    assert (asked.method, body["preconditions"], body["gracePeriodSeconds"]) == ("DELETE", {"uid": "u"}, 8)


@pytest.mark.parametrize("answer", [failure(404, "NotFound"), failure(409, "Conflict")])
def test_a_pod_that_is_gone_or_another_is_deleted_enough(answer: Behaviour, pod_manifest) -> None:
    bench = Bench(answer)
    bench.inventory.see(PODS, pod_manifest())
    bench.run(lambda client: bench.pods(client).delete("team", DeletePod("gpt-0", "uid-of-gpt-0", 5)))
    assert bench.inventory.pods.get("team", "gpt-0") is None


def owned(uid: str | None) -> dict[str, Any]:
    owner = {"apiVersion": "sternpost.dev/v1alpha1", "kind": "TrainingJob", "name": "gpt", "uid": uid}
    return {"name": "gpt-0", "namespace": "team", "uid": "p", "ownerReferences": [owner] if uid else []}


@pytest.mark.parametrize(
    ("uid", "error", "words"),
    [("uid-of-gpt", None, ""), ("earlier", OSError, "an earlier job"), (None, RefusedError, "not this job's")],
)
def test_a_pod_of_the_name_may_be_somebody_elses(
    job, uid: str | None, error: type[Exception] | None, words: str
) -> None:
    bench = Bench(failure(409, "AlreadyExists"), whole(200, kind="Pod", metadata=owned(uid)))

    def create(client: KubernetesClient) -> Coroutine[Any, Any, None]:
        return bench.pods(client).create(job, CreatePod(0))

    if error is None:
        bench.run(create)
    else:
        with pytest.raises(error, match=words):
            bench.run(create)


def test_a_pod_that_was_refused_is_not_asked_for_again_at_once(job) -> None:
    bench = Bench(failure(403, "Forbidden"))

    async def twice(client: KubernetesClient) -> None:
        pods = bench.pods(client)
        for _ in range(3):
            with pytest.raises(RefusedError, match="Forbidden"):
                await pods.create(job, CreatePod(0))
        bench.now = 100.0
        with pytest.raises(RefusedError):
            await pods.create(job, CreatePod(0))

    bench.run(twice)
    assert len(bench.server.asked) == 2


def test_a_higher_attempt_that_somebody_else_wrote_is_found_and_respected(job) -> None:
    def spec(number: int) -> AttemptSpec:
        return AttemptSpec(
            job="gpt",
            job_uid="uid-of-gpt",
            number=number,
            id=f"{number}-x",
            action=AttemptAction.HOLD,
            issued_at="2026-01-01T00:00:00Z",
        )

    metadata = {**owned("uid-of-gpt"), "name": "gpt", "resourceVersion": "9"}
    stored = {"metadata": metadata, "spec": spec(5).to_wire()}
    bench = Bench(failure(409, "AlreadyExists"), whole(200, **stored))
    with pytest.raises(ConflictError, match="attempt 5"):
        bench.run(lambda client: Attempts(client, bench.inventory).write(job, spec(4)))
    assert bench.inventory.attempts.get("team", "gpt") is not None
    again = Bench(whole(200, **{**stored, "spec": spec(6).to_wire()}))
    again.inventory.see(ATTEMPTS, stored)
    again.run(lambda client: Attempts(client, again.inventory).write(job, spec(6)))
    [asked] = again.server.asked
    assert asked.method == "PUT"
    assert json.loads(asked.body)["metadata"]["resourceVersion"] == "9", "over the version that was looked at"


@pytest.mark.parametrize(
    ("uid", "data", "error", "words"),
    [
        ("earlier", {"token": "eA=="}, OSError, "an earlier job"),
        (None, {"token": "eA=="}, RefusedError, "not this job's"),
        ("uid-of-gpt", {}, RefusedError, "holds no token"),
    ],
)
def test_a_secret_of_the_name_may_be_wrong(job, uid: str | None, data: dict[str, str], error: Any, words: str) -> None:
    bench = Bench(whole(200, kind="Secret", metadata=owned(uid), data=data))
    with pytest.raises(error, match=words):
        bench.run(lambda client: OwnedObjects(client, "sternpost-system").token(job))


def test_the_token_is_asked_for_once(job) -> None:
    bench = Bench(whole(200, kind="Secret", metadata=owned("uid-of-gpt"), data={"token": "c2VjcmV0"}))

    async def twice(client: KubernetesClient) -> list[str]:
        objects = OwnedObjects(client, "sternpost-system")
        return [await objects.token(job), await objects.token(job)]

    assert bench.run(twice) == ["secret", "secret"]
    assert len(bench.server.asked) == 1
