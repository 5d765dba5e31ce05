"""What every `Cluster` must do. Subclass `ClusterConformance` and provide a fixture `stage`: a cluster, and what happens in it.

A stage plays everybody else: the user, the scheduler, the nodes, the sidecars, the memory service.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

import pytest

from sternpost_operator.cluster.base import Cluster, ConflictError
from sternpost_operator.recovery.actions import CreatePod, DeletePod, RecordIncident, WriteAttempt
from sternpost_operator.recovery.observed import Observed, PodPhase, PodView
from sternpost_operator.resources.anomaly import AnomalyKind, AnomalySpec
from sternpost_operator.resources.attempt import AttemptAction, AttemptSpec, AttemptWorker, attempt_id
from sternpost_operator.resources.training_job import TrainingJob
from sternpost_operator.resources.training_job_status import Condition, Incident, Phase

T = TypeVar("T")

NOW = datetime(2026, 1, 1, tzinfo=UTC)
JOB = "gpt"
WAIT_SECONDS = 30.0


class Stage(Protocol):
    """A cluster with one namespace."""

    cluster: Cluster

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it; whatever the cluster does in the background goes on meanwhile."""

    def put_job(self, name: str, spec: dict[str, Any]) -> None:
        """The user applies a job, or changes its spec."""

    def delete_job(self, name: str) -> None:
        """The user deletes it; what belongs to it may take its time."""

    def node(self, name: str, *, ready: bool) -> None:
        """A node is there, and ready or not."""

    def run_pod(self, name: str, node: str) -> None:
        """The Pod is scheduled, and all its containers run."""

    def finish_pod(self, name: str, exit_code: int) -> None:
        """Its trainer has ended for good."""

    def confirm_end(self, name: str) -> None:
        """The node has ended a Pod that is being deleted."""

    def put_anomaly(self, name: str, spec: AnomalySpec) -> None:
        """A sidecar of the job reports."""

    def memory(self, *, up: bool) -> None:
        """The memory service answers, or does not."""

    def remembered(self) -> list[dict[str, Any]]:
        """Bodies that the memory service has taken, without repetitions."""

    def another_operator(self) -> None:
        """`cluster` is another one from now on, over the same objects, that has read them all."""


def spec(workers: int = 2, **more: Any) -> dict[str, Any]:
    """A small job's spec, as on the wire."""
    trainer = {"name": "trainer", "image": "train:1", "command": ["python3", "train.py"]}
    return {"workers": workers, "template": {"spec": {"containers": [trainer]}}, **more}


class ClusterConformance:
    """The tests."""

    # --- what they ask ---

    @staticmethod
    def until(stage: Stage, look: Callable[[], Coroutine[Any, Any, T]], test: Callable[[T], Any], what: str) -> T:
        deadline = time.monotonic() + WAIT_SECONDS
        while not test(found := stage.wait(look())):
            assert time.monotonic() < deadline, f"{what} was waited for; there is {found!r}"
        return found

    def job(self, stage: Stage, name: str = JOB) -> TrainingJob:
        """The job as the cluster has it, once it has it."""
        found = self.until(stage, lambda: stage.cluster.get_job(name), lambda job: job is not None, f"job {name}")
        assert found is not None
        return found

    def new_job(self, stage: Stage, name: str = JOB, **more: Any) -> TrainingJob:
        stage.put_job(name, spec(**more))
        return self.job(stage, name)

    def observed(self, stage: Stage, job: TrainingJob, test: Callable[[Observed], Any], what: str) -> Observed:
        return self.until(stage, lambda: stage.cluster.observe(job), test, what)

    def pod(self, stage: Stage, job: TrainingJob, slot: int, test: Callable[[PodView], Any], what: str) -> PodView:
        def of(seen: Observed) -> PodView | None:
            return next((pod for pod in seen.pods if pod.slot == slot), None)

        seen = self.observed(stage, job, lambda seen: (pod := of(seen)) is not None and test(pod), what)
        found = of(seen)
        assert found is not None
        return found

    def gone(self, stage: Stage, job: TrainingJob, slot: int) -> None:
        self.observed(stage, job, lambda seen: all(pod.slot != slot for pod in seen.pods), f"slot {slot} to be empty")

    def running(self, stage: Stage, job: TrainingJob, slot: int = 0, node: str = "node-1") -> PodView:
        stage.node(node, ready=True)
        stage.wait(stage.cluster.act(job, CreatePod(slot)))
        stage.run_pod(f"{job.metadata.name}-{slot}", node)
        return self.pod(stage, job, slot, lambda pod: pod.ready, "a Pod that is ready")

    @staticmethod
    def attempt(job: TrainingJob, number: int, action: AttemptAction, pod: PodView | None = None) -> AttemptSpec:
        uid = job.metadata.uid
        workers = []
        if pod is not None:
            member = {"pod": pod.name, "uid": pod.uid, "node": pod.node, "address": pod.address}
            workers = [AttemptWorker.model_validate({**member, "index": 0, "eagle_eye_port": pod.eagle_eye_port})]
        return AttemptSpec(
            job=job.metadata.name,
            job_uid=uid,
            number=number,
            id=attempt_id(uid, number),
            action=action,
            workers=workers,
            world_size=len(workers),
            issued_at=NOW,
        )

    def write(self, stage: Stage, job: TrainingJob, attempt: AttemptSpec) -> AttemptSpec:
        """Write it; what is read then."""
        stage.wait(stage.cluster.act(job, WriteAttempt(attempt)))
        seen = self.observed(
            stage,
            job,
            lambda seen: (
                seen.attempt is not None and (seen.attempt.id, seen.attempt.action) == (attempt.id, attempt.action)
            ),
            f"attempt {attempt.id} {attempt.action}",
        )
        assert seen.attempt is not None
        return seen.attempt

    # --- jobs ---

    def test_a_job_is_read_as_it_was_applied(self, stage: Stage) -> None:
        assert stage.wait(stage.cluster.get_job(JOB)) is None
        job = self.new_job(stage, spares=1)
        assert (job.spec.workers, job.spec.spares, job.status.phase) == (2, 1, Phase.PENDING)
        assert job.metadata.uid
        assert job.metadata.resource_version

    def test_a_deleted_job_is_gone(self, stage: Stage) -> None:
        self.new_job(stage)
        stage.delete_job(JOB)
        self.until(stage, lambda: stage.cluster.get_job(JOB), lambda job: job is None, "no job")

    def test_a_job_made_anew_is_another(self, stage: Stage) -> None:
        first = self.new_job(stage)
        stage.delete_job(JOB)
        self.until(stage, lambda: stage.cluster.get_job(JOB), lambda job: job is None, "no job")
        second = self.new_job(stage)
        assert second.metadata.uid != first.metadata.uid

    # --- the status ---

    def test_a_status_is_stored_and_read_again(self, stage: Stage) -> None:
        job = self.new_job(stage)
        condition = Condition(type="Odd", status="True", message="ä ⚓", last_transition_time=NOW)
        status = job.status.model_copy(update={"restarts": 3, "conditions": [condition], "started_at": NOW})
        written = stage.wait(stage.cluster.write_status(job, status))
        assert written.status == status
        assert written.spec == job.spec
        assert self.job(stage).status == status, "one's own write is seen at once"
        stage.another_operator()
        assert self.job(stage).status == status

    def test_a_status_for_an_older_version_is_refused_and_changes_nothing(self, stage: Stage) -> None:
        job = self.new_job(stage)
        stage.wait(stage.cluster.write_status(job, job.status.model_copy(update={"restarts": 1})))
        with pytest.raises(ConflictError):
            stage.wait(stage.cluster.write_status(job, job.status.model_copy(update={"restarts": 2})))
        assert self.job(stage).status.restarts == 1

    def test_a_status_is_refused_once_the_user_has_changed_the_job(self, stage: Stage) -> None:
        job = self.new_job(stage)
        stage.put_job(JOB, spec(suspend=True))
        with pytest.raises(ConflictError):
            stage.wait(stage.cluster.write_status(job, job.status.model_copy(update={"restarts": 2})))
        changed = self.until(
            stage, lambda: stage.cluster.get_job(JOB), lambda job: job is not None and job.spec.suspend, "suspend"
        )
        assert changed is not None
        assert stage.wait(stage.cluster.write_status(changed, changed.status.model_copy(update={"restarts": 2})))

    def test_the_status_of_a_deleted_job_is_refused(self, stage: Stage) -> None:
        job = self.new_job(stage)
        stage.delete_job(JOB)
        with pytest.raises(ConflictError):
            stage.wait(stage.cluster.write_status(job, job.status.model_copy(update={"restarts": 1})))

    # --- Pods ---

    def test_a_pod_is_created_once_however_often_it_is_asked_for(self, stage: Stage) -> None:
        stage.node("node-1", ready=False)
        job = self.new_job(stage)
        stage.wait(stage.cluster.act(job, CreatePod(0, ("node-9", "node-8"))))
        first = self.pod(stage, job, 0, lambda _: True, "a Pod")
        assert (first.name, first.phase, first.ready, first.node) == ("gpt-0", PodPhase.PENDING, False, None)
        assert first.excluded_nodes == ("node-9", "node-8")
        assert first.created_at is not None
        assert first.deleting_since is None
        stage.wait(stage.cluster.act(job, CreatePod(0)))
        stage.another_operator()
        stage.wait(stage.cluster.act(self.job(stage), CreatePod(0)))
        seen = stage.wait(stage.cluster.observe(self.job(stage)))
        assert [pod.uid for pod in seen.pods] == [first.uid]

    def test_what_was_just_created_is_seen_at_once(self, stage: Stage) -> None:
        job = self.new_job(stage)
        for slot in (1, 0):
            stage.wait(stage.cluster.act(job, CreatePod(slot)))
        assert [pod.slot for pod in stage.wait(stage.cluster.observe(job)).pods] == [0, 1]

    def test_a_running_pod(self, stage: Stage) -> None:
        job = self.new_job(stage)
        pod = self.running(stage, job)
        assert (pod.phase, pod.node, pod.trainer_restarts, pod.trainer_exit_code) == (
            PodPhase.RUNNING,
            "node-1",
            0,
            None,
        )
        assert pod.address
        assert pod.eagle_eye_port

    @pytest.mark.parametrize(("code", "phase"), [(0, PodPhase.SUCCEEDED), (3, PodPhase.FAILED)])
    def test_a_pod_that_ended(self, stage: Stage, code: int, phase: PodPhase) -> None:
        job = self.new_job(stage)
        self.running(stage, job)
        stage.finish_pod("gpt-0", code)
        pod = self.pod(stage, job, 0, lambda pod: pod.phase is phase, phase)
        assert (pod.ready, pod.trainer_exit_code) == (False, code)

    def test_only_the_pod_that_is_meant_is_deleted(self, stage: Stage) -> None:
        job = self.new_job(stage)
        pod = self.running(stage, job)
        stage.wait(stage.cluster.act(job, DeletePod("gpt-0", "another-uid", 5)))
        stage.another_operator()
        assert self.pod(stage, job, 0, lambda _: True, "the Pod") == pod

    def test_a_deleted_pod_ends_and_its_slot_is_filled_again(self, stage: Stage) -> None:
        job = self.new_job(stage)
        first = self.running(stage, job)
        asked = datetime.now(UTC)
        delete = DeletePod("gpt-0", first.uid, 30)
        stage.wait(stage.cluster.act(job, delete))
        leaving = self.pod(stage, job, 0, lambda pod: pod.deleting_since is not None, "a Pod that is being deleted")
        assert leaving.deleting_since is not None
        assert abs(leaving.deleting_since - asked) < timedelta(seconds=10), "when it was asked for, not when it is due"
        stage.wait(stage.cluster.act(job, delete))
        stage.confirm_end("gpt-0")
        self.gone(stage, job, 0)
        stage.wait(stage.cluster.act(job, delete))
        stage.wait(stage.cluster.act(job, CreatePod(0)))
        again = self.pod(stage, job, 0, lambda _: True, "a new Pod")
        assert again.uid != first.uid

    def test_by_force_the_object_goes_at_once(self, stage: Stage) -> None:
        job = self.new_job(stage)
        pod = self.running(stage, job)
        stage.node("node-1", ready=False)
        stage.wait(stage.cluster.act(job, DeletePod("gpt-0", pod.uid, 30)))
        stage.wait(stage.cluster.act(job, DeletePod("gpt-0", pod.uid, 0, force=True)))
        self.gone(stage, job, 0)

    def test_pods_of_another_job_are_not_seen(self, stage: Stage) -> None:
        one, other = self.new_job(stage), self.new_job(stage, "other")
        stage.wait(stage.cluster.act(other, CreatePod(0)))
        self.pod(stage, other, 0, lambda _: True, "the other's Pod")
        assert stage.wait(stage.cluster.observe(one)).pods == ()

    def test_pods_of_an_earlier_job_of_the_name_are_not_seen(self, stage: Stage) -> None:
        first = self.new_job(stage)
        pod = self.running(stage, first)
        stage.delete_job(JOB)
        self.until(stage, lambda: stage.cluster.get_job(JOB), lambda job: job is None, "no job")
        second = self.new_job(stage)
        assert all(seen.uid != pod.uid for seen in stage.wait(stage.cluster.observe(second)).pods)

    # --- nodes ---

    def test_nodes_and_since_when_they_are_as_they_are(self, stage: Stage) -> None:
        job = self.new_job(stage)
        stage.node("node-1", ready=True)
        stage.node("node-2", ready=True)

        def ready(seen: Observed) -> dict[str, bool]:
            return {node.name: node.ready for node in seen.nodes if node.name in ("node-1", "node-2")}

        seen = self.observed(stage, job, lambda seen: ready(seen) == {"node-1": True, "node-2": True}, "two nodes")
        before = {node.name: node.ready_since for node in seen.nodes}
        stage.node("node-2", ready=False)
        seen = self.observed(stage, job, lambda seen: ready(seen) == {"node-1": True, "node-2": False}, "one lost node")
        after = {node.name: node.ready_since for node in seen.nodes}
        assert after["node-1"] == before["node-1"]
        assert after["node-2"] >= before["node-2"]
        again = stage.wait(stage.cluster.observe(job))
        assert {node.name: node.ready_since for node in again.nodes} == after

    # --- the Attempt ---

    def test_an_attempt_goes_from_hold_to_run_with_a_place_to_meet(self, stage: Stage) -> None:
        job = self.new_job(stage)
        pod = self.running(stage, job)
        assert stage.wait(stage.cluster.observe(job)).attempt is None
        held = self.write(stage, job, self.attempt(job, 1, AttemptAction.HOLD))
        assert (held.number, held.master_port) == (1, 0)
        run = self.write(stage, job, self.attempt(job, 1, AttemptAction.RUN, pod))
        assert run.master_address
        assert 0 < run.master_port < 65536
        assert [worker.pod for worker in run.workers] == ["gpt-0"]
        stage.wait(stage.cluster.act(job, WriteAttempt(self.attempt(job, 1, AttemptAction.RUN, pod))))
        stage.another_operator()
        assert stage.wait(stage.cluster.observe(self.job(stage))).attempt == run, "the same, also for another operator"

    def test_consecutive_attempts_never_meet_at_one_port(self, stage: Stage) -> None:
        job = self.new_job(stage)
        pod = self.running(stage, job)
        ports = [
            self.write(stage, job, self.attempt(job, number, AttemptAction.RUN, pod)).master_port
            for number in range(1, 6)
        ]
        assert len(set(ports)) == len(ports)

    def test_an_attempt_never_goes_back(self, stage: Stage) -> None:
        job = self.new_job(stage)
        pod = self.running(stage, job)
        newest = self.write(stage, job, self.attempt(job, 7, AttemptAction.RUN, pod))
        with pytest.raises(ConflictError):
            stage.wait(stage.cluster.act(job, WriteAttempt(self.attempt(job, 6, AttemptAction.RUN, pod))))
        stage.another_operator()
        job = self.job(stage)
        with pytest.raises(ConflictError):
            stage.wait(stage.cluster.act(job, WriteAttempt(self.attempt(job, 6, AttemptAction.HOLD))))
        assert stage.wait(stage.cluster.observe(job)).attempt == newest

    def test_completion_keeps_the_place_to_meet(self, stage: Stage) -> None:
        job = self.new_job(stage)
        run = self.write(stage, job, self.attempt(job, 3, AttemptAction.RUN, self.running(stage, job)))
        complete = run.model_copy(update={"complete": True})
        stage.wait(stage.cluster.act(job, WriteAttempt(complete)))
        seen = self.observed(stage, job, lambda seen: seen.attempt is not None and seen.attempt.complete, "completion")
        assert seen.attempt == complete

    # --- anomalies ---

    def test_anomalies_of_the_job_and_no_others(self, stage: Stage) -> None:
        one, other = self.new_job(stage), self.new_job(stage, "other")
        mine = AnomalySpec(
            job=JOB,
            attempt=attempt_id(one.metadata.uid, 1),
            kind=AnomalyKind.SLOW,
            worker=1,
            node="node-1",
            confidence=0.9,
            evict=True,
            evidence="1.8 times the median",
            first_seen=NOW,
            last_seen=NOW,
        )
        stage.put_anomaly("mine", mine)
        stage.put_anomaly("others", mine.model_copy(update={"job": "other"}))
        seen = self.observed(stage, one, lambda seen: seen.anomalies, "an anomaly")
        assert [(each.name, each.spec) for each in seen.anomalies] == [("mine", mine)]
        seen = self.observed(stage, other, lambda seen: seen.anomalies, "an anomaly")
        assert [each.name for each in seen.anomalies] == ["others"]

    # --- incidents ---

    def test_incidents_are_told_until_they_are_taken(self, stage: Stage) -> None:
        job = self.new_job(stage)
        incident = Incident(id="i-1", at=NOW, text="Node node-1 was left.", node="node-1", cause="NodeLost")
        stage.memory(up=False)
        stage.wait(stage.cluster.act(job, RecordIncident(incident)))
        assert stage.wait(stage.cluster.observe(job)).acknowledged_incidents == frozenset()
        stage.memory(up=True)

        async def tell_again() -> Observed:
            await stage.cluster.act(job, RecordIncident(incident))
            return await stage.cluster.observe(job)

        self.until(stage, tell_again, lambda seen: "i-1" in seen.acknowledged_incidents, "the incident to be taken")
        [body] = stage.remembered()
        [observation] = body["observations"]
        assert observation["text"] == incident.text
        assert observation["entities"] == ["node/node-1", "job/gpt"]
        assert observation["attributes"] == {"cause": "NodeLost"}
        assert observation["occurredAt"] == NOW.timestamp()
