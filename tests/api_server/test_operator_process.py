"""The operator's process on a real API server: who leads, what a crash costs, and what an idle operator asks.

Nodes and eagle-eyes are played by `FakeNodes`, so that there can be hundreds of jobs, and every moment can be chosen.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bare_api import BareApi, bare_api
from fake_nodes import FakeNodes
from kube import condition_of
from operator_replicas import NAMESPACE, Replica, Replicas, eventually, exit_code, total

from sternpost_operator.cluster.kubernetes.configuration import load_configuration

TAKEOVER_SECONDS = 15.0
IDLE_SECONDS = 60
RUNNING_JOBS, FINISHED_JOBS = 20, 200


@pytest.fixture(scope="module")
def api() -> Iterator[BareApi]:
    with bare_api() as made:
        made.kube.kubectl("create", "namespace", NAMESPACE)
        yield made


@pytest.fixture
def namespace(api: BareApi) -> Iterator[str]:
    name = f"team-{secrets.token_hex(3)}"
    api.kube.kubectl("create", "namespace", name)
    yield name
    api.kube.kubectl("delete", "trainingjobs,attempts,pods", "--all", "--force", "--grace-period=0", namespace=name)


@pytest.fixture
def nodes(api: BareApi, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNodes]:
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig))
    made = FakeNodes(asyncio.run(load_configuration()))
    yield made
    made.close()
    api.kube.kubectl("delete", "nodes", "--all")


@pytest.fixture
def replicas(api: BareApi, tmp_path: Path) -> Iterator[Replicas]:
    made = Replicas(api.kubeconfig, tmp_path)
    yield made
    made.close()
    api.kube.kubectl("delete", "lease", "sternpost-operator", "--ignore-not-found", namespace=NAMESPACE)
    for each in made.all:
        text = each.log.read_text()
        print(f"--- {each.identity}\n{text[-5000:]}")  # noqa: T201 -- shown when the test failed
        assert "Traceback" not in text


def manifest(namespace: str, name: str, workers: int = 2, **more: Any) -> dict[str, Any]:
    trainer = {"name": "trainer", "image": "train:1", "command": ["python3", "train.py"]}
    recovery = {"settleSeconds": 0.5, "nodeLostSeconds": 2, "graceSeconds": 1, "forceDeleteSeconds": 2}
    return {
        "apiVersion": "sternpost.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "workers": workers,
            "recovery": recovery,
            "template": {"spec": {"containers": [trainer]}},
            **more,
        },
    }


class Job:
    """A job of a namespace."""

    def __init__(self, api: BareApi, namespace: str, name: str = "gpt") -> None:
        self.api, self.namespace, self.name = api, namespace, name

    def apply(self, **spec: Any) -> None:
        self.api.kube.apply(manifest(self.namespace, self.name, **spec))

    def object(self) -> dict[str, Any]:
        found = self.api.kube.get("trainingjob", self.name, self.namespace)
        assert found is not None
        return found

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.object().get("status") or {}
        return status

    def wait(self, phase: str, seconds: float = 60, *, attempt: int = 0) -> dict[str, Any]:
        def reached(job: dict[str, Any]) -> bool:
            status = job.get("status") or {}
            return status.get("phase") == phase and status["attempt"]["number"] >= attempt

        found = self.api.kube.wait_for(
            "trainingjob", self.name, reached, phase, namespace=self.namespace, seconds=seconds
        )
        status: dict[str, Any] = found["status"]
        return status

    def events(self) -> list[dict[str, Any]]:
        return [
            event
            for event in self.api.kube.items("events", self.namespace)
            if event["involvedObject"]["name"] == self.name
        ]


def test_a_killed_leader_is_replaced_in_time_and_no_pod_is_made_twice(
    api: BareApi, namespace: str, nodes: FakeNodes, replicas: Replicas
) -> None:
    first = replicas.start()
    replicas.leader()
    replicas.start()
    job = Job(api, namespace)
    job.apply(workers=3)
    before = job.wait("Running")
    eventually(lambda: nodes.step(namespace, "gpt") > 4, "some steps")
    made = list(nodes.created)
    first.process.kill()
    killed_at = time.monotonic()
    leader = replicas.leader(TAKEOVER_SECONDS)
    # The new leader has read everything and acts: what happens now is its business.
    nodes.fail_rank(namespace, "gpt")
    after = job.wait("Running", attempt=before["attempt"]["number"] + 1)
    assert leader is not first
    assert nodes.created == made, "survivors keep their Pods"
    assert (after["restarts"], after["budgets"]) == (1, {"ranks": 1, "pods": 0, "jobs": 0})
    lease = api.kube.get("lease", "sternpost-operator", NAMESPACE)
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == leader.identity
    assert time.monotonic() - killed_at < 60
    assert total(leader.metrics(), "sternpost_operator_leader") == 1


def leader_and_follower(replicas: Replicas) -> tuple[Replica, Replica]:
    """One that leads, and one that is up and waits."""
    first = replicas.start()
    replicas.leader()
    second = replicas.start()
    eventually(
        lambda: second.log.exists() and any(line["event"] == "operator starts" for line in second.lines()),
        "the second to be up",
    )
    return first, second


def test_takeover_takes_at_most_fifteen_seconds(
    api: BareApi, namespace: str, nodes: FakeNodes, replicas: Replicas
) -> None:
    first, _ = leader_and_follower(replicas)
    first.process.kill()
    killed_at = time.monotonic()
    Job(api, namespace).apply(workers=1)
    eventually(lambda: nodes.pods(namespace), "a Pod, made by the new leader", TAKEOVER_SECONDS + 15)
    seconds = time.monotonic() - killed_at
    assert seconds <= TAKEOVER_SECONDS, f"{seconds:.1f} s"


def test_a_leader_that_is_told_to_end_hands_over_at_once(
    api: BareApi, namespace: str, nodes: FakeNodes, replicas: Replicas
) -> None:
    first, second = leader_and_follower(replicas)
    first.signal(signal.SIGTERM)
    codes: list[int] = []
    eventually(lambda: codes or ((code := exit_code(first)) is not None and codes.append(code) is None), "its end", 20)
    told_at = time.monotonic()
    eventually(lambda: second.leads, "the second to lead", 5)
    assert codes == [0]
    assert time.monotonic() - told_at < 5


def test_a_leader_that_stood_still_ends_and_does_nothing_more(
    api: BareApi, namespace: str, nodes: FakeNodes, replicas: Replicas
) -> None:
    first = replicas.start()
    replicas.leader()
    second = replicas.start()
    job = Job(api, namespace)
    job.apply(workers=1)
    job.wait("Running")
    first.signal(signal.SIGSTOP)
    eventually(lambda: second.leads, "the second to lead", TAKEOVER_SECONDS + 5)
    made = len(nodes.created)
    [pod] = nodes.pods(namespace)
    api.kube.kubectl("delete", "pod", pod, "--wait=false", namespace=namespace)
    first.signal(signal.SIGCONT)
    codes: list[int] = []
    eventually(lambda: codes or ((code := exit_code(first)) is not None and codes.append(code) is None), "its end", 20)
    assert codes == [3], "the lease is lost"
    status = job.wait("Running", attempt=2)
    assert len(nodes.created) == made + 1
    assert status["restarts"] == 1


def test_an_operator_killed_at_random_moments_repeats_nothing_and_refunds_nothing(
    api: BareApi, namespace: str, nodes: FakeNodes, replicas: Replicas
) -> None:
    seed = time.time_ns()
    print(f"seed {seed}")  # noqa: T201 -- to be able to repeat it
    dice = random.Random(seed)  # noqa: S311
    replicas.start()
    job = Job(api, namespace)
    job.apply(workers=3, recovery={"settleSeconds": 0.2, "graceSeconds": 1, "budgets": {"ranks": 50, "pods": 50}})
    failures = 5
    for number in range(failures):
        job.wait("Running", seconds=90, attempt=number + 1)
        before = job.status()
        assert before["restarts"] == number
        pod = dice.choice(sorted(nodes.pods(namespace)))
        api.kube.kubectl("delete", "pod", pod, "--wait=false", "--grace-period=0", namespace=namespace)
        for _ in range(dice.randint(1, 3)):
            # Any moment: while it notices, decides, writes, creates, or starts up itself.
            wait_random(dice)
            replicas.all[-1].process.kill()
            api.kube.kubectl("delete", "lease", "sternpost-operator", "--ignore-not-found", namespace=NAMESPACE)
            replicas.start()
    status = job.wait("Running", seconds=90, attempt=failures + 1)
    assert status["restarts"] == failures, "each failure is decided upon once"
    assert status["budgets"] == {"ranks": 0, "pods": failures, "jobs": 0}, "and charged once"
    assert status["attempt"]["number"] == failures + 1
    assert [record["number"] for record in status["attempts"]] == list(range(1, failures + 1))
    assert len(nodes.created) == 3 + failures, "each Pod is made once"
    attempt = api.kube.get("attempt", "gpt", namespace)
    assert attempt is not None
    assert attempt["spec"]["id"] == status["attempt"]["id"]
    names = [event["metadata"]["name"] for event in job.events() if event["reason"] == "PodLost"]
    assert len(names) <= failures
    assert all(event.get("count", 1) == 1 for event in job.events())


def wait_random(dice: random.Random) -> None:
    """No wait for something that has a time: the moment itself is what is chosen."""
    time.sleep(dice.uniform(0.05, 3.0))


def test_a_lost_node_is_left_and_its_pod_is_removed_by_force(
    api: BareApi, namespace: str, nodes: FakeNodes, replicas: Replicas
) -> None:
    replicas.start()
    job = Job(api, namespace)
    job.apply(workers=2)
    job.wait("Running")
    lost = nodes.pods(namespace)["gpt-1"]["spec"]["nodeName"]
    nodes.lose_node(lost)
    status = job.wait("Running", attempt=2)
    assert [each["node"] for each in status["excludedNodes"]] == [lost]
    assert all(pod["spec"].get("nodeName") != lost for pod in nodes.pods(namespace).values())
    reasons = [event["reason"] for event in job.events()]
    assert {"AttemptIssued", "NodeLost", "NodeExcluded"} <= set(reasons)
    leader = replicas.leader()
    samples = leader.metrics()
    assert total(samples, "sternpost_operator_recoveries_total", 'cause="NodeLost"') == 1
    assert total(samples, "sternpost_operator_node_exclusions", f'node="{lost}"') == 1
    assert total(samples, "sternpost_job_attempt", f'namespace="{namespace}"', 'job_name="gpt"') == 2


def test_the_api_server_restarted_and_what_vanished_meanwhile(
    api: BareApi, namespace: str, nodes: FakeNodes, replicas: Replicas
) -> None:
    replicas.start()
    job = Job(api, namespace)
    job.apply(workers=2)
    before = job.wait("Running")
    leader = replicas.leader()
    api.restart()
    if not leader.process.alive:
        replicas.start()  # it could not renew its lease, and nobody else is there to start it anew
    api.kube.kubectl("delete", "pod", "gpt-0", "--wait=false", "--grace-period=0", namespace=namespace)
    after = job.wait("Running", attempt=before["attempt"]["number"] + 1)
    assert after["budgets"]["pods"] == 1


def test_jobs_that_cannot_be_run_are_told_so_and_nobody_else_notices(
    api: BareApi, namespace: str, nodes: FakeNodes, replicas: Replicas
) -> None:
    replicas.start()
    good = Job(api, namespace, "good")
    good.apply(workers=2)
    before = good.wait("Running")
    taken = Job(api, namespace, "taken")
    wrong = manifest(namespace, "taken", 1)
    wrong["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    refused = Job(api, namespace, "refused")
    limits = manifest(namespace, "refused", 1)
    limits["spec"]["template"]["spec"]["containers"][0]["resources"] = {
        "requests": {"cpu": "2"},
        "limits": {"cpu": "1"},
    }
    api.kube.apply(wrong, limits)

    def said(job: Job, kind: str, words: str) -> None:
        def has(found: dict[str, Any]) -> bool:
            condition = condition_of(found, kind)
            return condition is not None and condition["status"] == "False" and words in condition["message"]

        api.kube.wait_for("trainingjob", job.name, has, f"{kind} about {words}", namespace=namespace, seconds=30)
        eventually(lambda: any(words in event["message"] for event in job.events()), "an event that says so")

    said(taken, "Accepted", "spec.template.spec.containers[0].volumeMounts[0].name")
    said(refused, "PodsAllowed", "spec.containers[0].resources.requests")
    assert refused.status()["budgets"] == {"ranks": 0, "pods": 0, "jobs": 0}
    assert not [name for name in nodes.pods(namespace) if not name.startswith("good")]
    del wrong["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    limits["spec"]["template"]["spec"]["containers"][0]["resources"] = {}
    # The template of a job cannot be changed.
    api.kube.kubectl("delete", "trainingjob", "taken", "refused", namespace=namespace)
    # There is no garbage collector here.
    api.kube.kubectl("delete", "secret", "refused-token", namespace=namespace)
    api.kube.apply(wrong, limits)
    for job, kind in ((taken, "Accepted"), (refused, "PodsAllowed")):
        job.wait("Running")
        assert condition_of(job.object(), kind) is None
    assert good.status()["attempt"]["id"] == before["attempt"]["id"]


def test_a_quota_that_refuses_pods_is_told_and_heals(
    api: BareApi, namespace: str, nodes: FakeNodes, replicas: Replicas
) -> None:
    replicas.start()
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none", "namespace": namespace},
        "spec": {"hard": {"pods": "0"}},
    }
    api.kube.apply(quota)
    # Nobody counts for the quota here but the API server itself, which needs a status to count with.
    status = {"status": {"hard": {"pods": "0"}, "used": {"pods": "0"}}}
    patch = ("patch", "resourcequota", "none", "--subresource=status", "--type=merge", "-p", json.dumps(status))
    api.kube.kubectl(*patch, namespace=namespace)
    job = Job(api, namespace)
    job.apply(workers=1)

    def refused(found: dict[str, Any]) -> bool:
        condition = condition_of(found, "PodsAllowed")
        return condition is not None and "exceeded quota: none" in condition["message"]

    api.kube.wait_for("trainingjob", "gpt", refused, "PodsAllowed=False", namespace=namespace, seconds=30)
    api.kube.kubectl("delete", "resourcequota", "none", namespace=namespace)
    job.wait("Running", seconds=120)
    assert job.status()["budgets"] == {"ranks": 0, "pods": 0, "jobs": 0}
    mended = condition_of(job.object(), "PodsAllowed")
    assert mended is not None
    assert mended["status"] == "True"


@pytest.mark.timeout(600)
def test_an_idle_operator_asks_at_most_one_thing_a_second(
    api: BareApi, namespace: str, nodes: FakeNodes, replicas: Replicas
) -> None:
    finished = [f"done-{number}" for number in range(FINISHED_JOBS)]
    api.kube.apply(*(manifest(namespace, name, 1) for name in finished))
    nodes.put_status(namespace, finished, {"phase": "Succeeded", "finishedAt": "2026-01-01T00:00:00Z"})
    leader = replicas.start()
    replicas.leader()
    replicas.start()  # the passive one counts, too
    api.kube.apply(*(manifest(namespace, f"run-{number}", 1) for number in range(RUNNING_JOBS)))

    def running() -> bool:
        phases = [job["status"]["phase"] for job in api.kube.items("trainingjobs", namespace) if "status" in job]
        return phases.count("Running") == RUNNING_JOBS and phases.count("Succeeded") == FINISHED_JOBS

    eventually(running, "all jobs to run", 180)
    requests = settled(api, leader)
    began, before = time.monotonic(), total(leader.metrics(), "sternpost_operator_api_requests_total")
    # The time is the measure: what is counted is what happens while nothing does.
    time.sleep(IDLE_SECONDS)
    seconds = time.monotonic() - began
    asked = api.requests("sternpost-operator")[len(requests) :]
    kinds: dict[str, int] = {}
    for entry in asked:
        reference = entry.get("objectRef") or {}
        assert isinstance(reference, dict)
        kinds[f"{entry['verb']} {reference.get('resource')}"] = (
            kinds.get(f"{entry['verb']} {reference.get('resource')}", 0) + 1
        )
    print(f"{len(asked) / seconds:.2f} requests a second: {kinds}")  # noqa: T201
    assert len(asked) <= seconds, kinds
    own = total(leader.metrics(), "sternpost_operator_api_requests_total") - before
    assert own <= len(asked) + 5, "its own count agrees, but for watches that begin anew"


def settled(api: BareApi, leader: Replica) -> list[dict[str, object]]:
    """All requests so far, once no job has anything left to do."""

    def quiet() -> bool:
        before = len(api.requests("sternpost-operator"))
        time.sleep(3)
        return len(api.requests("sternpost-operator")) - before <= 6

    eventually(quiet, "some quiet", 120)
    assert leader.process.alive
    return api.requests("sternpost-operator")
