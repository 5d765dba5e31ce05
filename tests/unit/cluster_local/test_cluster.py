"""`LocalCluster` with real nodes, a fake eagle-eye and a fake memory service."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import pytest

from sternpost_operator.cluster.base import ConflictError
from sternpost_operator.cluster.local.cluster import LocalCluster
from sternpost_operator.cluster.local.node_process import kill_node
from sternpost_operator.cluster.local.processes import container_processes
from sternpost_operator.recovery.actions import Action, CreatePod, DeletePod, RecordIncident, WriteAttempt
from sternpost_operator.recovery.observed import Observed, PodPhase, PodView
from sternpost_operator.resources.attempt import AttemptAction, AttemptSpec, AttemptWorker, attempt_id
from sternpost_operator.resources.base import ObjectMeta
from sternpost_operator.resources.training_job import TrainingJob, TrainingJobSpec
from sternpost_operator.resources.training_job_status import Incident

Machine = Any
Result = TypeVar("Result")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SLEEP = "exec sleep 600"


class Bench:
    """A cluster and one job on it; Pods are as small as they can be."""

    def __init__(self, machine: Machine, script: str = SLEEP, **spec: Any) -> None:
        self.machine = machine
        self.script = script
        self.loop = asyncio.new_event_loop()
        self.cluster = LocalCluster(machine.paths, memory_url="", pod_builder=self.build)
        template = {"spec": {"containers": [{"name": "trainer", "command": ["true"]}]}}
        job = TrainingJob(
            metadata=ObjectMeta(name="gpt"), spec=TrainingJobSpec(**{"workers": 2, "template": template, **spec})
        )
        self.job = self.cluster.store.put_job(job)

    def build(self, job: TrainingJob, slot: int, excluded_nodes: Any, **options: Any) -> dict[str, Any]:
        assert options["control_plane"] == self.machine.paths.control_plane
        labels = {"sternpost.dev/job": job.metadata.name, "sternpost.dev/slot": str(slot)}
        trainer = self.machine.shell("trainer", self.script, ports=[{"name": "eagle-eye", "containerPort": 9470}])
        manifest: dict[str, Any] = self.machine.pod(f"gpt-{slot}", trainer, node=None, uid="none", labels=labels)
        manifest["metadata"]["ownerReferences"] = [{"uid": job.metadata.uid}]
        if excluded_nodes:
            expression = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": list(excluded_nodes)}
            required = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
            manifest["spec"]["affinity"] = {
                "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}
            }
        return manifest

    def wait(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return self.loop.run_until_complete(coroutine)

    def act(self, *actions: Action) -> None:
        for action in actions:
            self.wait(self.cluster.act(self.job, action))

    def observe(self) -> Observed:
        return self.wait(self.cluster.observe(self.job))

    def pod(self, slot: int) -> PodView | None:
        return next((view for view in self.observe().pods if view.slot == slot), None)

    def until(self, test: Callable[[Observed], Any]) -> Observed:
        found: Observed = self.machine.wait_for(lambda: (seen := self.observe()) and test(seen) and seen)
        return found

    def attempt(self, number: int, action: AttemptAction = AttemptAction.RUN, port: int = 1) -> AttemptSpec:
        uid = self.job.metadata.uid
        worker = AttemptWorker(index=0, pod="gpt-0", uid="u", node="node-1", address="127.0.0.1", eagle_eye_port=port)
        return AttemptSpec(
            job="gpt",
            job_uid=uid,
            number=number,
            id=attempt_id(uid, number),
            action=action,
            workers=[worker] if action is AttemptAction.RUN else [],
            issued_at=NOW,
        )

    def close(self) -> None:
        self.wait(self.cluster.aclose())
        self.loop.close()


@pytest.fixture
def bench(machine: Machine) -> Iterator[Bench]:
    made = Bench(machine)
    yield made
    made.close()


@contextmanager
def serving(answer: Callable[[str, Any, bytes], tuple[int, bytes]]) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, content = answer(self.path, self.headers, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_pods_are_created_scheduled_run_and_deleted(bench: Bench) -> None:
    bench.machine.start("node-1")
    bench.machine.start("node-2")
    bench.act(CreatePod(0), CreatePod(1), CreatePod(1))
    seen = bench.until(lambda seen: all(pod.ready for pod in seen.pods))
    assert [(pod.name, pod.slot, pod.node, pod.phase) for pod in seen.pods] == [
        ("gpt-0", 0, "node-1", PodPhase.RUNNING),
        ("gpt-1", 1, "node-2", PodPhase.RUNNING),
    ]
    assert all(pod.eagle_eye_port and pod.address == "127.0.0.1" for pod in seen.pods)
    assert [(node.name, node.ready) for node in seen.nodes] == [("node-1", True), ("node-2", True)]
    first = seen.pods[0]
    bench.act(DeletePod("gpt-0", "another", 5))
    assert bench.pod(0) == first
    bench.act(DeletePod("gpt-0", first.uid, 5))
    bench.until(lambda seen: len(seen.pods) == 1)
    bench.act(DeletePod("gpt-0", first.uid, 5), CreatePod(0))
    again = bench.until(lambda seen: len(seen.pods) == 2 and seen.pods[0].ready).pods[0]
    assert again.uid != first.uid


def test_pods_wait_for_a_node_and_avoid_excluded_ones(bench: Bench) -> None:
    bench.machine.start("node-1")
    bench.act(CreatePod(0, excluded_nodes=("node-1",)))
    pod = bench.pod(0)
    assert pod is not None
    assert (pod.phase, pod.node, pod.excluded_nodes) == (PodPhase.PENDING, None, ("node-1",))
    assert pod.reason.startswith("Unschedulable: 0 of 1 nodes can take it")
    bench.machine.start("node-2")
    seen = bench.until(lambda seen: seen.pods[0].ready)
    assert seen.pods[0].node == "node-2"
    bench.act(CreatePod(1), CreatePod(2))
    assert {pod.slot: pod.node for pod in bench.observe().pods} == {0: "node-2", 1: "node-1", 2: None}


def test_dead_node_makes_its_pods_unknown_and_lets_them_be_removed(bench: Bench) -> None:
    agent = bench.machine.start("node-1")
    bench.act(CreatePod(0))
    bench.until(lambda seen: seen.pods[0].ready)
    kill_node(bench.machine.paths, "node-1")
    agent.wait(timeout=10)
    seen = bench.observe()
    [pod], [node] = seen.pods, seen.nodes
    assert (pod.phase, pod.ready, node.ready) == (PodPhase.UNKNOWN, False, False)
    assert node.ready_since == node.last_heartbeat
    assert bench.observe().nodes == seen.nodes
    bench.act(DeletePod("gpt-0", pod.uid, 5))
    assert bench.observe().pods == ()
    bench.act(CreatePod(0))
    waiting = bench.pod(0)
    assert waiting is not None
    assert "1 not ready" in waiting.reason


def test_pod_being_deleted_when_its_node_dies_is_removed_with_its_processes(bench: Bench) -> None:
    bench.script = "trap '' TERM; while true; do sleep 0.05; done"
    agent = bench.machine.start("node-1")
    bench.act(CreatePod(0))
    [pod] = bench.until(lambda seen: seen.pods[0].ready).pods
    bench.act(DeletePod("gpt-0", pod.uid, 600))
    [pod] = bench.observe().pods
    assert pod.deleting_since is not None
    agent.kill()
    agent.wait(timeout=10)
    bench.until(lambda seen: not seen.pods)
    assert container_processes(bench.machine.paths.state_id, pod.uid, "trainer") == []


def test_force_removes_the_object_at_once(bench: Bench) -> None:
    bench.script = "trap '' TERM; while true; do sleep 0.05; done"
    bench.machine.start("node-1")
    bench.act(CreatePod(0))
    [pod] = bench.until(lambda seen: seen.pods[0].ready).pods
    bench.act(DeletePod("gpt-0", pod.uid, 600, force=True))
    assert bench.observe().pods == ()
    bench.machine.wait_for(lambda: not container_processes(bench.machine.paths.state_id, pod.uid, "trainer"))


def test_exit_code_and_restarts_of_the_trainer(bench: Bench) -> None:
    bench.script = "kill -9 $$$$"
    bench.machine.start("node-1")
    bench.act(CreatePod(0))
    seen = bench.until(lambda seen: seen.pods[0].trainer_restarts >= 1 and seen.pods[0].trainer_exit_code is not None)
    assert seen.pods[0].trainer_exit_code == -9


def test_pods_of_an_earlier_job_of_the_name_are_cleared_away(bench: Bench) -> None:
    bench.machine.start("node-1")
    bench.act(CreatePod(0))
    bench.until(lambda seen: seen.pods[0].ready)
    bench.cluster.store.delete_job("gpt")
    bench.job = bench.cluster.store.put_job(bench.job.model_copy(update={"metadata": ObjectMeta(name="gpt")}))
    bench.until(lambda seen: not seen.pods and not bench.cluster.store.pods())


def test_deleted_job_leaves_nothing(bench: Bench) -> None:
    bench.machine.start("node-1")
    bench.act(CreatePod(0), WriteAttempt(bench.attempt(1)))
    bench.until(lambda seen: seen.pods[0].ready)
    bench.cluster.delete_job("gpt")
    bench.machine.wait_for(lambda: not bench.cluster.store.pods())
    left = [path.name for path in bench.machine.paths.objects.rglob("*") if path.is_file()]
    assert sorted(left) == [".lock", "node-1.json"]


def test_status_is_written_to_the_version_that_was_read(bench: Bench) -> None:
    changed = bench.job.status.model_copy(update={"restarts": 1})
    written = bench.wait(bench.cluster.write_status(bench.job, changed))
    assert bench.wait(bench.cluster.get_job("gpt")) == written
    assert bench.wait(bench.cluster.write_status(written, changed)) == written
    for status in (changed, bench.job.status):
        with pytest.raises(ConflictError):
            bench.wait(bench.cluster.write_status(bench.job, status))
    assert bench.wait(bench.cluster.get_job("other")) is None


def test_attempt_never_goes_back_and_gets_a_new_port_each_run(bench: Bench) -> None:
    bench.act(WriteAttempt(bench.attempt(1, AttemptAction.HOLD)))
    held = bench.observe().attempt
    assert held is not None
    assert held.master_port == 0
    ports = []
    for number in (1, 1, 2, 3):
        bench.act(WriteAttempt(bench.attempt(number)))
        attempt = bench.observe().attempt
        assert attempt is not None
        assert attempt.master_address == "127.0.0.1"
        ports.append(attempt.master_port)
    assert ports[0] == ports[1]
    assert len(set(ports)) == 3
    with pytest.raises(ConflictError, match="too late"):
        bench.act(WriteAttempt(bench.attempt(2)))
    stored = bench.observe().attempt
    assert stored is not None
    assert stored.number == 3


def test_attempt_of_an_earlier_job_does_not_count(bench: Bench) -> None:
    bench.act(WriteAttempt(bench.attempt(7).model_copy(update={"job_uid": "earlier"})))
    assert bench.observe().attempt is None
    bench.act(WriteAttempt(bench.attempt(1)))
    attempt = bench.observe().attempt
    assert attempt is not None
    assert attempt.number == 1


def test_progress_is_asked_of_worker_zero_with_the_token(bench: Bench) -> None:
    seen: list[tuple[str, str]] = []
    answers = iter(
        [
            (200, json.dumps({"attempt": "1-a", "attemptNumber": 1, "at": 1764000000.0, "step": 7, "new": 1}).encode()),
            (404, b""),
            (200, b'{"attempt": 1}'),
            (200, b"x" * (9 * 1024 * 1024)),
        ]
    )

    def answer(path: str, headers: Any, body: bytes) -> tuple[int, bytes]:
        seen.append((path, headers["Authorization"]))
        return next(answers)

    with serving(answer) as port:
        bench.act(WriteAttempt(bench.attempt(1, port=port)))
        progress = bench.observe().progress
        assert progress is not None
        assert (progress.step, progress.at) == (7, datetime.fromtimestamp(1764000000, UTC))
        assert [bench.observe().progress for _ in range(3)] == [None, None, None]
    assert bench.observe().progress is None
    path = bench.machine.paths.objects / "secrets" / "gpt-token.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {found for found, _ in seen} == {"/v1/progress"}
    [authorization] = {header for _, header in seen}
    assert authorization.startswith("Bearer ")
    assert len(authorization) > 40


def test_incidents_are_told_until_they_are_taken(machine: Machine) -> None:
    bench = Bench(machine, memory={"space": "team-a"})
    incident = Incident(id="gpt-1-NodeLost", at=NOW, text="node-1 was lost", node="node-1")
    taken: list[tuple[str, str, Any]] = []
    statuses = iter([503, 202])

    def answer(path: str, headers: Any, body: bytes) -> tuple[int, bytes]:
        taken.append((path, headers["Idempotency-Key"], json.loads(body)))
        return next(statuses), b"{}"

    bench.cluster.memory_url = None
    bench.act(RecordIncident(incident))
    assert bench.observe().acknowledged_incidents == frozenset()
    with serving(answer) as port:
        bench.cluster.memory_url = f"http://127.0.0.1:{port}/"
        bench.act(RecordIncident(incident), RecordIncident(incident))
        assert len(taken) == 1, "it is left alone for a moment after a failure"
        assert bench.observe().acknowledged_incidents == frozenset()
        machine.wait_for(lambda: bench.act(RecordIncident(incident)) or bench.observe().acknowledged_incidents)
    assert bench.observe().acknowledged_incidents == {"gpt-1-NodeLost"}
    path, key, body = taken[-1]
    assert (path, key) == ("/v1/spaces/team-a/observations", "gpt-1-NodeLost")
    [observation] = body["observations"]
    assert observation["entities"] == ["node/node-1", "job/gpt"]
    assert observation["occurredAt"] == NOW.timestamp()
    bench.close()


def test_without_a_memory_service_incidents_count_as_taken(bench: Bench) -> None:
    bench.act(RecordIncident(Incident(id="a", at=NOW, text="x")), RecordIncident(Incident(id="b", at=NOW, text="y")))
    assert bench.observe().acknowledged_incidents == {"a", "b"}
    (bench.machine.paths.acknowledged / "gpt.json").write_text("garbage")
    assert bench.observe().acknowledged_incidents == frozenset()


def test_anomalies_are_read_and_garbage_is_left_out(bench: Bench) -> None:
    spec = {"job": "gpt", "attempt": "1-a", "kind": "hang", "confidence": 1, "evidence": "x"}
    spec |= {"firstSeen": "2026-01-01T00:00:00Z", "lastSeen": "2026-01-01T00:00:00Z"}
    folder = bench.machine.paths.objects / "anomalies" / "gpt"
    folder.mkdir()
    for name, content in {
        "1-a-hang-0": json.dumps({"metadata": {"name": "1-a-hang-0"}, "spec": spec}),
        "other": json.dumps({"metadata": {"name": "other"}, "spec": spec | {"job": "other"}}),
        "wrong": json.dumps({"metadata": {"name": "wrong"}, "spec": spec | {"confidence": 7}}),
        "torn": '{"spec',
    }.items():
        (folder / f"{name}.json").write_text(content)
    [anomaly] = bench.observe().anomalies
    assert (anomaly.name, anomaly.spec.kind) == ("1-a-hang-0", "hang")


def test_damaged_secret_is_made_anew(bench: Bench) -> None:
    path = bench.machine.paths.objects / "secrets" / "gpt-token.json"
    path.write_text('{"data": {"token": 5}}')
    bench.act(CreatePod(0))
    assert len(json.loads(path.read_text())["data"]["token"]) > 40


def test_garbage_in_nodes_and_pods_is_left_out(bench: Bench) -> None:
    bench.machine.start("node-1")
    objects: Path = bench.machine.paths.objects
    for content in ("{}", "[]", "{", '{"name": "node-9", "pid": 1e400}'):
        (objects / "nodes" / "node-9.json").write_text(content)
        (objects / "pods" / "gpt-0").mkdir(exist_ok=True)
        (objects / "pods" / "gpt-0" / "pod.json").write_text(content)
        assert [node.name for node in bench.observe().nodes] == ["node-1"]
        assert bench.observe().pods == ()
    (objects / "pods" / "gpt-0").mkdir(exist_ok=True)
    bench.act(CreatePod(0))
    bench.until(lambda seen: seen.pods and seen.pods[0].ready)


def test_the_real_manifest_runs(machine: Machine) -> None:
    """The Pod that users get, with its launcher and sidecars, is one that the agent understands."""
    command = ["python3", "-c", "import os; print(os.environ['STERNPOST_SHM_DIR'], flush=True)"]
    template = {"spec": {"containers": [{"name": "trainer", "command": command}]}}
    cluster = LocalCluster(machine.paths, memory_url="")
    working_dir = {"sternpost.dev/local-working-dir": os.fspath(machine.paths.state_dir)}
    metadata = ObjectMeta(name="gpt", annotations=working_dir)
    checkpoint = {"storage": "file:///tmp/never-written", "sharedMemory": "1Mi"}
    spec = TrainingJobSpec.model_validate({"workers": 1, "template": template, "checkpoint": checkpoint})
    job = cluster.store.put_job(TrainingJob(metadata=metadata, spec=spec))
    loop = asyncio.new_event_loop()
    loop.run_until_complete(cluster.act(job, CreatePod(0)))
    loop.run_until_complete(cluster.aclose())
    loop.close()
    from sternpost_operator.cluster.local.pod_spec import VolumeKind, parse_pod

    manifest = cluster.store.pod("gpt-0")
    assert manifest is not None
    manifest["spec"]["nodeName"] = "node-1"
    pod = parse_pod(manifest, "gpt-0")
    assert [container.name for container in pod.init_containers] == [
        "sternpost-launcher",
        "sternpost-eagle-eye",
        "sternpost-checkpoint",
    ]
    assert [container.sidecar for container in pod.init_containers] == [False, True, True]
    assert pod.volumes["sternpost-shm"].kind is VolumeKind.MEMORY
    assert pod.annotations["sternpost.dev/local-working-dir"] == os.fspath(machine.paths.state_dir)
