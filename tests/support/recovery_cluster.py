"""A cluster that is deliberately simple: dictionaries, virtual time, launchers that do what the newest attempt they saw says.

It knows nothing of recovery. It checks what must never happen at the moment it would happen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sternpost_operator.recovery.actions import Action, CreatePod, DeleteJob, DeletePod, RecordIncident, WriteAttempt
from sternpost_operator.recovery.observed import (
    AnomalyView,
    NodeCondition,
    NodeTaint,
    NodeView,
    Observed,
    PodPhase,
    PodView,
)
from sternpost_operator.recovery.plan import plan
from sternpost_operator.resources.anomaly import AnomalyKind, AnomalySpec
from sternpost_operator.resources.attempt import AttemptAction, AttemptSpec
from sternpost_operator.resources.base import ObjectMeta
from sternpost_operator.resources.progress import (
    CheckpointReport,
    LauncherState,
    ProgressReport,
    RankExit,
    RestoreReport,
    WorkerReport,
)
from sternpost_operator.resources.training_job import TrainingJob, TrainingJobSpec
from sternpost_operator.resources.training_job_status import Cause, Phase, TrainingJobStatus

START = datetime(2025, 1, 1, tzinfo=UTC)
TOTAL_STEPS = 45
PODS_PER_NODE = 2
UNREADY_AFTER = 2.0
HANG_SEEN_AFTER = 4.0


class ConflictError(Exception):
    """The status was written by somebody else meanwhile, or a higher attempt is there."""


class CrashError(Exception):
    """The operator was ended here."""


@dataclass
class Node:
    name: str
    since: float = 0
    up: bool = True
    """Whether it is reached; its processes may go on while it is not."""
    ill_since: float | None = None
    """Since when a condition says that its hardware is bad."""
    leaves_since: float | None = None
    leaves_at: float = 0


@dataclass
class Pod:
    name: str
    uid: str
    slot: int
    created: float
    avoids: tuple[str, ...]
    node: str | None = None
    deleted: float | None = None
    phase: PodPhase = PodPhase.PENDING
    ready_at: float = 0
    seen: AttemptSpec | None = None
    """The newest attempt its sidecar saw."""
    started: set[str] = field(default_factory=set)
    state: LauncherState = LauncherState.WAITING
    started_at: float | None = None
    failed_at: float | None = None
    exit_code: int | None = None
    restarts: int = 0
    hung: bool = False
    disrupted: bool = False
    mute: bool = False
    """Its sidecar sends and answers nothing any more."""
    stuck: bool = False
    """Its launcher never gets its ranks started."""

    @property
    def index(self) -> int | None:
        workers = self.seen.workers if self.seen else []
        return next((worker.index for worker in workers if worker.uid == self.uid), None)


class FakeCluster:
    """One job on a few nodes."""

    def __init__(self, spec: TrainingJobSpec, nodes: int) -> None:
        self.job = TrainingJob(metadata=ObjectMeta(name="job", uid="job-uid"), spec=spec)
        self.version = 0
        self.clock = 0.0
        self.nodes = {f"node-{number}": Node(f"node-{number}") for number in range(nodes)}
        self.pods: dict[str, Pod] = {}
        self.attempt: AttemptSpec | None = None
        self.anomalies: dict[str, AnomalySpec] = {}
        self.acknowledged: set[str] = set()
        self.memory_up = True
        self.committed = 0
        self.steps: dict[str, int] = {}
        self.restored: dict[str, tuple[int, float]] = {}
        self.first_steps: dict[str, tuple[int, float]] = {}
        self.stalled_since: dict[str, float] = {}
        self.assignments: dict[str, tuple[tuple[int, str], ...]] = {}
        self.highest_number = 0
        self.uids = 0
        self.told: set[str] = set()
        self.ever_ill: set[str] = set()
        self.ever_leaving: set[str] = set()
        self.ever_disrupted: set[str] = set()
        self.saved: set[tuple[str, int]] = set()
        self.deleted = False

    # Time and what it brings

    @property
    def now(self) -> datetime:
        return self.at(self.clock)

    @staticmethod
    def at(seconds: float) -> datetime:
        return START + timedelta(seconds=seconds)

    def tick(self, seconds: float) -> None:
        """Let the world go on."""
        self.clock += seconds
        for node in self.nodes.values():
            if node.leaves_since is not None and self.clock >= node.leaves_at:
                self.lose_node(node.name, kill=True)
        for pod in list(self.pods.values()):
            self._schedule(pod)
            self._run_pod(pod)
        for identity in {pod.seen.id for pod in self.pods.values() if pod.seen is not None}:
            self._train(identity)
        self._look_for_mute()

    def is_up(self, pod: Pod) -> bool:
        return pod.node is None or (pod.node in self.nodes and self.nodes[pod.node].up)

    def _schedule(self, pod: Pod) -> None:
        if pod.node is not None or pod.deleted is not None:
            return
        load = {name: sum(each.node == name for each in self.pods.values()) for name in self.nodes}
        fitting = [
            name
            for name, node in sorted(self.nodes.items())
            if node.up and name not in pod.avoids and load[name] < PODS_PER_NODE
        ]
        if fitting:
            pod.node = min(fitting, key=lambda name: (load[name], name))
            pod.ready_at = self.clock + 1

    def _run_pod(self, pod: Pod) -> None:
        if not self.is_up(pod):
            return
        if pod.deleted is not None:
            del self.pods[pod.name]
            return
        if pod.node is None or pod.phase in (PodPhase.SUCCEEDED, PodPhase.FAILED):
            return
        if pod.phase is PodPhase.PENDING and self.clock >= pod.ready_at:
            pod.phase = PodPhase.RUNNING
        if pod.phase is not PodPhase.RUNNING or self.clock < pod.ready_at:
            return
        self._follow_attempt(pod)
        if pod.exit_code == 0:
            pod.phase = PodPhase.SUCCEEDED

    def _follow_attempt(self, pod: Pod) -> None:
        newest = self.attempt
        if newest is not None and (pod.seen is None or newest.number >= pod.seen.number):
            same = pod.seen is not None and pod.seen.id == newest.id
            assert not same or newest.issued_at >= pod.seen.issued_at, "a later version was issued earlier"
            if pod.seen is None or newest.number > pod.seen.number:
                pod.state, pod.hung, pod.failed_at, pod.started_at = LauncherState.WAITING, False, None, None
            pod.seen = newest
        if pod.seen is None or pod.state is not LauncherState.WAITING:
            return
        if pod.seen.action is AttemptAction.STOP:
            pod.exit_code = 0
        elif pod.seen.action is AttemptAction.RUN and pod.index is not None:
            if pod.stuck:
                return
            if pod.seen.id in pod.started:
                pod.state, pod.failed_at = LauncherState.FAILED, self.clock
            else:
                pod.started.add(pod.seen.id)
                pod.state, pod.started_at = LauncherState.RUNNING, self.clock

    def _group(self, identity: str) -> list[Pod]:
        return [
            pod
            for pod in self.pods.values()
            if pod.seen is not None and pod.seen.id == identity and pod.index is not None and identity in pod.started
        ]

    def _train(self, identity: str) -> None:
        """The ranks of one attempt; also of an old one whose holders see no newer."""
        group = self._group(identity)
        indices = [pod.index for pod in group]
        assert len(set(indices)) == len(indices), f"two Pods are the same worker of {identity}: {indices}"
        if not group:
            return
        size = len(self.assignments[identity])
        alive = [pod for pod in group if pod.state is LauncherState.RUNNING and self.is_up(pod)]
        if len(alive) < size or any(pod.hung for pod in alive):
            self._stall(identity, alive)
            return
        self.stalled_since.pop(identity, None)
        if identity not in self.restored:
            self.restored[identity] = (self.committed, self.clock)
            self.steps[identity] = self.committed
        self.steps[identity] += 1
        step = self.steps[identity]
        self.first_steps.setdefault(identity, (step, self.clock))
        asked = {pod.seen.save_at_step for pod in alive if pod.seen is not None}
        if asked == {step}:
            self.saved.add((identity, step))
        if (step % 3 == 0 or asked == {step}) and self.attempt is not None and self.attempt.id == identity:
            self.committed = max(self.committed, min(step, TOTAL_STEPS))
        if step >= TOTAL_STEPS:
            for pod in alive:
                pod.exit_code, pod.state = 0, LauncherState.SUCCEEDED

    def _stall(self, identity: str, alive: list[Pod]) -> None:
        """Ranks wait for one that is missing: eagle-eye sees that in the end."""
        since = self.stalled_since.setdefault(identity, self.clock)
        if self.clock - since < HANG_SEEN_AFTER or self.attempt is None or self.attempt.id != identity or not alive:
            return
        hung = [pod for pod in alive if pod.hung]
        if len(alive) < len(self.assignments[identity]) and not hung:
            return
        blamed = hung[0] if len(hung) == 1 else None
        self.report_anomaly(AnomalyKind.HANG, identity, blamed, evict=False)

    def _look_for_mute(self) -> None:
        """Worker 0's eagle-eye misses those that send nothing."""
        group = [pod for pod in self.pods.values() if pod.seen and self.attempt and pod.seen.id == self.attempt.id]
        zero = next((pod for pod in group if pod.index == 0), None)
        if zero is None or zero.mute or not self.is_up(zero) or zero.exit_code == 0:
            return
        for pod in group:
            if pod.index and pod.mute and pod.exit_code != 0:
                self.report_anomaly(AnomalyKind.WORKER_GONE, pod.seen.id if pod.seen else "", pod, evict=True)

    # Faults

    def report_anomaly(self, kind: AnomalyKind, identity: str, pod: Pod | None, *, evict: bool) -> None:
        index = pod.index if pod else None
        name = f"{identity}-{kind}-{index}"
        known = self.anomalies.get(name)
        self.anomalies[name] = AnomalySpec(
            job="job",
            attempt=identity,
            kind=kind,
            worker=index,
            pod=pod.name if pod else None,
            node=pod.node if pod else None,
            confidence=0.9,
            evict=evict,
            evidence="the model says so",
            first_seen=known.first_seen if known else self.now,
            last_seen=self.now,
        )

    def fail_rank(self, pod: Pod) -> None:
        if pod.state is LauncherState.RUNNING and pod.exit_code is None and self.is_up(pod):
            pod.state, pod.failed_at = LauncherState.FAILED, self.clock

    def kill_launcher(self, pod: Pod) -> None:
        if pod.phase is PodPhase.RUNNING and pod.exit_code != 0 and self.is_up(pod):
            pod.exit_code, pod.restarts, pod.ready_at = -9, pod.restarts + 1, self.clock + 1
            if pod.state is LauncherState.RUNNING:
                pod.state, pod.failed_at = LauncherState.FAILED, self.clock

    def lose_node(self, name: str, *, kill: bool) -> None:
        node = self.nodes[name]
        if node.up:
            node.up, node.since = False, self.clock
        for pod in self.pods.values():
            if kill and pod.node == name and pod.phase is PodPhase.RUNNING:
                pod.phase = PodPhase.FAILED

    def announce(self, name: str, *, seconds: float) -> None:
        """The node says that it goes, and does after so long."""
        node = self.nodes[name]
        if node.up and node.leaves_since is None:
            node.leaves_since, node.leaves_at = self.clock, self.clock + seconds
            self.ever_leaving.add(name)

    def disrupt(self, pod: Pod, *, delete: bool) -> None:
        """Somebody evicts the Pod."""
        if pod.node is not None:
            self.ever_disrupted.add(pod.node)
            pod.disrupted = True
            if delete and pod.deleted is None:
                pod.deleted = self.clock

    def fall_ill(self, name: str) -> None:
        node = self.nodes[name]
        if node.ill_since is None:
            node.ill_since = self.clock
            self.ever_ill.add(name)

    def return_node(self, name: str) -> None:
        node = self.nodes[name]
        node.ill_since = node.leaves_since = None
        if not node.up:
            node.up, node.since = True, self.clock

    # The interface of a cluster

    def observe(self) -> Observed:
        return Observed(
            pods=tuple(self._pod_view(pod) for pod in self.pods.values()),
            nodes=tuple(self._node_view(node) for node in self.nodes.values()),
            attempt=self.attempt,
            anomalies=tuple(AnomalyView(name, spec) for name, spec in self.anomalies.items()),
            progress=self._progress(),
            acknowledged_incidents=frozenset(self.acknowledged),
        )

    def write_status(self, version: int, status: TrainingJobStatus) -> None:
        if version != self.version:
            raise ConflictError
        self._check_status(self.job.status, status)
        # Through the wire and back, as an API server would have it.
        stored = TrainingJobStatus.model_validate(status.to_wire())
        assert stored == status
        self.job = self.job.model_copy(update={"status": stored})
        self.version += 1

    def change_spec(self, **fields: object) -> None:
        if self.job.metadata.deletion_timestamp is not None:
            return
        metadata = self.job.metadata.model_copy(update={"generation": self.job.metadata.generation + 1})
        spec = self.job.spec.model_copy(update=fields)
        self.job = self.job.model_copy(update={"metadata": metadata, "spec": spec})
        self.version += 1

    def act(self, action: Action) -> None:
        match action:
            case CreatePod():
                name = f"job-{action.slot}"
                if name not in self.pods:
                    self.uids += 1
                    self.pods[name] = Pod(
                        name, f"uid-{self.uids}", action.slot, self.clock, avoids=action.excluded_nodes
                    )
            case DeletePod():
                pod = self.pods.get(action.name)
                if pod is not None and pod.uid == action.uid:
                    pod.deleted = self.clock if pod.deleted is None else pod.deleted
                    if action.force or pod.node is None:
                        del self.pods[action.name]
            case WriteAttempt():
                self._write_attempt(action.spec)
            case DeleteJob():
                assert not self.job.status.unsent_incidents, "a job was deleted with something left to tell"
                self.deleted = True
            case RecordIncident():
                self.told.add(action.incident.id)
                if self.memory_up:
                    self.acknowledged.add(action.incident.id)

    def _write_attempt(self, spec: AttemptSpec) -> None:
        if self.attempt is not None and self.attempt.number > spec.number:
            raise ConflictError
        self.highest_number = max(self.highest_number, spec.number)
        assert spec.number == self.highest_number, "an attempt's number went back"
        if spec.action is AttemptAction.RUN:
            assignment = tuple((worker.index, worker.uid) for worker in spec.workers)
            assert [index for index, _ in assignment] == list(range(len(assignment)))
            assert len({uid for _, uid in assignment}) == len(assignment), "one Pod is two workers"
            assert self.assignments.setdefault(spec.id, assignment) == assignment, "one id, two assignments"
            excluded = {each.node for each in self.job.status.excluded_nodes if each.until > self.now}
            assert not excluded & {worker.node for worker in spec.workers}, "a worker on an excluded node"
            assert spec.world_size == len(assignment) * spec.ranks_per_worker
        if self.attempt is not None and self.attempt.id == spec.id and self.attempt.action is AttemptAction.RUN:
            assert spec.action is AttemptAction.RUN, "a running attempt was taken back without a new number"
        self.attempt = spec

    # Projections

    def _pod_view(self, pod: Pod) -> PodView:
        running = pod.phase is PodPhase.RUNNING
        return PodView(
            name=pod.name,
            uid=pod.uid,
            slot=pod.slot,
            phase=pod.phase,
            node=pod.node,
            ready=running and self.clock >= pod.ready_at and pod.exit_code != 0,
            deleting_since=None if pod.deleted is None else self.at(pod.deleted),
            created_at=self.at(pod.created),
            address="127.0.0.1" if pod.node else None,
            eagle_eye_port=9470 if pod.node else None,
            trainer_exit_code=pod.exit_code,
            trainer_restarts=pod.restarts,
            reason="" if pod.node else "Unschedulable: no node fits",
            excluded_nodes=pod.avoids,
            disruption="EvictionByEvictionAPI: evicted" if pod.disrupted else "",
        )

    def _node_view(self, node: Node) -> NodeView:
        ready = node.up or self.clock - node.since < UNREADY_AFTER
        ill, leaves = node.ill_since, node.leaves_since
        return NodeView(
            node.name,
            ready,
            self.at(node.since),
            self.at(node.since if not node.up else self.clock),
            conditions=() if ill is None else (NodeCondition("Bad", "True", since=self.at(ill)),),
            taints=() if leaves is None else (NodeTaint("karpenter.sh/disrupted", "NoSchedule"),),
        )

    def _progress(self) -> ProgressReport | None:
        current = self.attempt
        zero = next((worker for worker in current.workers if worker.index == 0), None) if current else None
        pod = self.pods.get(zero.pod) if zero else None
        if pod is None or pod.seen is None or not self.is_up(pod) or pod.phase is not PodPhase.RUNNING:
            return None
        if pod.mute:
            return None
        identity = pod.seen.id
        step = self.steps.get(identity)
        first, restored = self.first_steps.get(identity), self.restored.get(identity)
        return ProgressReport(
            attempt=identity,
            attempt_number=pod.seen.number,
            at=self.now,
            step=step,
            steps_per_second=1.0 if first else None,
            loss=float("nan") if step == 1 else 1.0,
            first_step=first[0] if first else None,
            first_step_at=self.at(first[1]) if first else None,
            last_step_at=self.now if first else None,
            reports_steps=step is not None,
            restored=RestoreReport(step=restored[0], at=self.at(restored[1])) if restored else None,
            checkpoint=CheckpointReport(committed_step=self.committed or None),
            workers=[
                self._worker_report(each)
                for each in self.pods.values()
                if each.seen and self.is_up(each) and not each.mute
            ],
        )

    def _worker_report(self, pod: Pod) -> WorkerReport:
        assert pod.seen is not None
        failed = pod.state is LauncherState.FAILED and pod.failed_at is not None
        return WorkerReport(
            index=pod.index,
            pod=pod.name,
            node=pod.node or "",
            seen_at=self.now,
            attempt=pod.seen.id,
            launcher=pod.state,
            started_at=self.at(pod.started_at) if pod.started_at is not None else None,
            first_failure=RankExit(rank=0, exit_code=1, at=self.at(pod.failed_at or 0)) if failed else None,
        )

    # What must hold for every status that is ever written

    def _check_status(self, old: TrainingJobStatus, new: TrainingJobStatus) -> None:
        assert new.attempt.number >= old.attempt.number
        for rung in ("ranks", "pods", "jobs"):
            before, after = getattr(old.budgets, rung), getattr(new.budgets, rung)
            assert before <= after, f"budget {rung} was refilled"
            assert after == before or after <= getattr(self.job.spec.recovery.budgets, rung), f"{rung} exceeded"
        for record in new.attempts[len(old.attempts) :]:
            found = any(spec.attempt == record.id for spec in self.anomalies.values())
            if record.cause in (Cause.HANG, Cause.SLOW_NODE):
                assert found, "a finding of an old attempt"
            if record.cause is Cause.NODE_UNHEALTHY:
                assert found or record.node in self.ever_ill, "a node was blamed without evidence"
            if record.cause is Cause.NODE_LEAVING:
                assert record.node in self.ever_leaving | self.ever_disrupted, "a node was left that never said it goes"
            if "was saved" in record.message:
                assert any(identity == record.id for identity, _ in self.saved), "nothing was saved"
        for entry in new.excluded_nodes:
            assert "taint" not in entry.reason, "to leave is no offence"
        stages = {record.number: record.stages.to_wire() for record in new.attempts}
        for record in old.attempts:
            before = record.stages.to_wire()
            assert record.number not in stages or before.items() <= stages[record.number].items(), "a stage changed"
        assert new.restarts >= old.restarts
        assert sum((new.budgets.ranks, new.budgets.pods, new.budgets.jobs)) <= new.restarts
        if old.phase.terminal:
            assert new.phase is old.phase
            assert new.finished_at == old.finished_at
            assert new.budgets == old.budgets


@dataclass
class FakeOperator:
    """The reconcile of an operator that can be ended between any two steps."""

    cluster: FakeCluster
    past: list[Observed] = field(default_factory=list)

    def reconcile(
        self, *, crash_after: int | None = None, observed: Observed | None = None, meddle: bool = False
    ) -> None:
        """Observe, plan, write, act; `crash_after` steps (the status, then each action) it is ended."""
        cluster = self.cluster
        job, version = cluster.job, cluster.version
        seen = observed if observed is not None else cluster.observe()
        self.past = [*self.past[-4:], seen]
        planned = plan(job, seen, cluster.now)
        again = plan(job.model_copy(update={"status": planned.status}), seen, cluster.now)
        assert again.status == planned.status, "planning twice changed the status"
        assert again.actions == planned.actions, "planning twice changed the actions"
        if meddle:
            cluster.version += 1
        steps_left = crash_after
        try:
            if planned.status != job.status:
                cluster.write_status(version, planned.status)
            for action in planned.actions:
                if steps_left is not None:
                    if steps_left == 0:
                        return
                    steps_left -= 1
                cluster.act(action)
        except ConflictError:
            return

    @property
    def is_terminal(self) -> bool:
        return self.cluster.job.status.phase.terminal


def settle(cluster: FakeCluster, operator: FakeOperator, *, seconds: float = 3000) -> None:
    """End all faults, and let time pass until the job has ended."""
    for name in cluster.nodes:
        cluster.return_node(name)
    for pod in cluster.pods.values():
        pod.disrupted = False
    cluster.memory_up = True
    if cluster.job.spec.suspend:
        cluster.change_spec(suspend=False)
    end = cluster.clock + seconds
    while cluster.clock < end:
        cluster.tick(0.5)
        operator.reconcile()
        status = cluster.job.status
        if status.phase.terminal and not status.unsent_incidents and _is_clean(cluster, status.phase):
            return
    raise AssertionError(f"not ended after {seconds} s: {cluster.job.status!r} {cluster.pods} {cluster.attempt}")


def _is_clean(cluster: FakeCluster, phase: Phase) -> bool:
    pods = cluster.pods.values()
    return not pods if phase is Phase.FAILED else all(pod.exit_code == 0 for pod in pods)
