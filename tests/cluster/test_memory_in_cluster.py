"""The memory service in a cluster: who may use it, and that nothing is lost when it or its Redis is killed."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from chart_release import SYSTEM
from cluster_job import ClusterJob
from kube import Kube, NotInTimeError, Object

PROGRAM = (Path(__file__).parents[1] / "support" / "ask_memory.py").read_text()
URL = f"http://sternpost-memory.{SYSTEM}:8765"
AUDIENCE = "sternpost-memory"
PATIENCE_SECONDS = 180
"""For a killed Pod to be replaced on a busy machine."""
WRITES = 300


class MemoryClient:
    """A Pod in a namespace of its own, which asks the service over the cluster's network."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self.kube = kube
        self.namespace = namespace

    def start(self) -> None:
        deployment = self.kube.get("deployment", "sternpost-memory", SYSTEM)
        assert deployment is not None
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        self.kube.apply(
            _pod(container["image"], container.get("imagePullPolicy", "IfNotPresent")), namespace=self.namespace
        )
        self.kube.wait_for(
            "pod", "client", lambda pod: pod["status"].get("phase") == "Running", "running",
            namespace=self.namespace, seconds=120,
        )  # fmt: skip

    def token(self, *, audience: str = AUDIENCE, namespace: str = "") -> str:
        """A token of the account `default` of a namespace, this client's own unless another one is named."""
        return self.kube.kubectl(
            "create", "token", "default", "--audience", audience, namespace=namespace or self.namespace
        ).strip()

    def ask(self, *requests: dict[str, Any], seconds: float = 60) -> list[tuple[int, Any]]:
        """Status and body of each answer."""
        work = {"url": URL, "seconds": seconds, "requests": requests}
        found = self.kube.kubectl(
            *("exec", "--stdin", "client", "--", "python3", "-c", PROGRAM),
            namespace=self.namespace,
            stdin=json.dumps(work),
            timeout=seconds + 120,
        )
        return [(each["status"], _decoded(each["body"])) for each in json.loads(found)]


def _pod(image: str, pull_policy: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "client", "labels": {"sternpost.dev/memory-client": "true"}},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {
                    "name": "client",
                    "image": image,
                    "imagePullPolicy": pull_policy,
                    "command": ["python3", "-c", "import signal; signal.pause()"],
                }
            ],
        },
    }


def _decoded(body: str) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body


def get(path: str, token: str | None) -> dict[str, Any]:
    return {"method": "GET", "path": path, "token": token}


def write(space: str, number: int, token: str) -> dict[str, Any]:
    body = {"observations": [{"text": f"event {number}", "entities": [f"node/{number % 3}"]}]}
    return {
        "method": "POST",
        "path": f"/v1/spaces/{space}/observations",
        "token": token,
        "body": body,
        "key": str(number),
    }


@pytest.fixture
def client(kube: Kube, chart: str, namespace: str) -> MemoryClient:
    client = MemoryClient(kube, namespace)
    client.start()
    return client


def test_a_service_account_uses_the_space_of_its_own_namespace(client: MemoryClient) -> None:
    own = client.namespace
    mine, others = client.token(), client.token(namespace="kube-system")
    for_api = client.token(audience="https://kubernetes.default.svc")
    topics = f"/v1/spaces/{own}/topics"
    answers = client.ask(
        write(own, 1, mine),
        get(topics, mine),
        get(topics, None),
        get(topics, "made.up.token"),
        get(topics, for_api),
        get(topics, others),
        write(own, 2, others),
        get("/v1/spaces/kube-system/topics", mine),
        get("/v1/spaces/default/topics", mine),
        get("/healthz", None),
        get("/metrics", None),
    )
    assert [status for status, _ in answers] == [202, 200, 401, 401, 401, 403, 403, 403, 403, 200, 200], answers
    ((_, log),) = client.ask(get(f"/v1/spaces/{own}/observations", mine))
    assert [item["text"] for item in log["observations"]] == ["event 1"]
    # Neither a token nor the name of a tenant gets out.
    memory = ("--selector", "app.kubernetes.io/component=memory")
    said = client.kube.kubectl("logs", *memory, "--tail=-1", namespace=SYSTEM)
    page = answers[-1][1]
    assert not any(token in said or token in page for token in (mine, others, for_api, "made.up.token"))
    assert own not in page


def test_nothing_is_lost_when_the_service_and_redis_are_killed(client: MemoryClient, kube: Kube) -> None:
    token = client.token()
    space = client.namespace
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(
            client.ask, *(write(space, number, token) for number in range(WRITES)), seconds=PATIENCE_SECONDS
        )
        for component in ("redis", "memory", "redis"):
            wait_for_more(client, token)
            for pod in kube.items("pods", SYSTEM, "--selector", f"app.kubernetes.io/component={component}"):
                # With no time to end anything: the kubelet kills it at once.
                kube.kubectl(
                    *("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force", "--wait=true"),
                    namespace=SYSTEM,
                )
        answers = writing.result()
    assert [status for status, _ in answers] == [202] * WRITES
    acknowledged = {body["seqs"][0]: f"event {number}" for number, (_, body) in enumerate(answers)}
    assert log_of(client, token) == acknowledged
    assert len(acknowledged) == WRITES
    consolidated(client, answers[-1][1]["job"], token)
    ((_, page),) = client.ask(get(f"/v1/spaces/{space}/topics", token), seconds=PATIENCE_SECONDS)
    assert sum(topic["sources"] for topic in page["topics"]) == WRITES


def test_incidents_of_the_operator_arrive(client: MemoryClient, job: ClusterJob) -> None:
    job.spec["memory"] = {"space": job.namespace}
    job.spec["workers"] = 1
    job.spec["recovery"] = {"budgets": {"ranks": 0, "pods": 0, "jobs": 0}, "startSeconds": 240}
    manifest = job.manifest()
    manifest["spec"]["template"]["spec"]["containers"][0].update(
        command=["python3", "-c"], args=["raise SystemExit(3)"]
    )
    client.kube.apply(manifest, namespace=job.namespace)
    job.wait_phase("Failed")
    token = client.token()
    deadline = time.monotonic() + 90
    texts: list[str] = []
    while not any("failed" in text for text in texts):
        assert time.monotonic() < deadline, texts
        texts = list(log_of(client, token).values())
        time.sleep(0.5)
    question = {
        "method": "POST", "path": f"/v1/spaces/{job.namespace}/search", "token": token,
        "body": {"query": f"why did {job.name} fail"},
    }  # fmt: skip
    # The buffer is searched at once; the topic documents follow within seconds.
    found: dict[str, Any] = {}
    while f"job/{job.name}" not in json.dumps(found):
        assert time.monotonic() < deadline, found
        ((status, found),) = client.ask(question)
        assert status == 200
        assert found["hits"][0]["source"] == "sternpost-operator"
        time.sleep(0.5)


def log_of(client: MemoryClient, token: str) -> dict[int, str]:
    """Seq → text of the whole log of the client's space."""
    log: dict[int, str] = {}
    after: int | None = 0
    while after is not None:
        path = f"/v1/spaces/{client.namespace}/observations?after={after}&limit=200"
        ((status, page),) = client.ask(get(path, token), seconds=PATIENCE_SECONDS)
        assert status == 200, page
        log |= {item["seq"]: item["text"] for item in page["observations"]}
        after = page["next"]
    return log


def wait_for_more(client: MemoryClient, token: str, more: int = 20) -> None:
    """Wait until some more observations were written (or all are)."""
    wanted = min(WRITES, len(log_of(client, token)) + more)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(log_of(client, token)) < wanted:
        if time.monotonic() > deadline:
            raise NotInTimeError(f"fewer than {wanted} observations")
        time.sleep(0.1)


def consolidated(client: MemoryClient, job: str, token: str) -> None:
    """Wait until a job is done."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        ((status, body),) = client.ask(get(f"/v1/jobs/{job}", token), seconds=PATIENCE_SECONDS)
        assert status == 200, body
        if body["state"] == "done":
            return
        if time.monotonic() > deadline:
            raise NotInTimeError(f"job {job} is not done")
        time.sleep(0.3)
