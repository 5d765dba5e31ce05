"""A fluent builder of jobs and observations: a running job, and what goes wrong with it, in a line each."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from sternpost_operator.recovery.actions import CreatePod, DeletePod, RecordIncident, WriteAttempt
from sternpost_operator.recovery.observed import (
    AnomalyView,
    NodeCondition,
    NodeTaint,
    NodeView,
    Observed,
    PodPhase,
    PodView,
)
from sternpost_operator.recovery.plan import Plan, plan
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
from sternpost_operator.resources.training_job import (
    CheckpointPolicy,
    FailureRule,
    RecoveryPolicy,
    TrainingJob,
    TrainingJobSpec,
)

START = datetime(2025, 1, 1, tzinfo=UTC)
TEMPLATE = {"spec": {"containers": [{"name": "trainer", "image": "gpt", "command": ["python", "train.py"]}]}}


class Scene:
    """A job on nodes `node-0` … with one Pod each: workers first, then spares. Changes are in place and chain."""

    def __init__(self, *, workers: int | None = 3, spares: int = 1, **spec: Any) -> None:
        recovery = spec.pop("recovery", {})
        rules = [FailureRule(exit_codes=[code], action=action) for code, action in spec.pop("rules", {}).items()]
        self.job = TrainingJob(
            metadata=ObjectMeta(name="gpt", uid="uid-of-job"),
            spec=TrainingJobSpec(
                workers=workers,
                spares=spares,
                template=TEMPLATE,
                recovery=RecoveryPolicy(**recovery, rules=rules),
                checkpoint=CheckpointPolicy(storage="file:///checkpoints"),
                **spec,
            ),
        )
        self.now = START
        self.pods: dict[int, PodView] = {}
        self.nodes: dict[str, NodeView] = {}
        self.attempt: AttemptSpec | None = None
        self.progress: ProgressReport | None = None
        self.last_progress: ProgressReport | None = None
        self.anomalies: list[AnomalyView] = []
        self.acknowledged: set[str] = set()
        self.node_history: dict[str, int] = {}
        self.drains: dict[str, str] = {}
        self.silent: set[int] = set()
        self.plans: list[Plan] = []

    # The world

    def with_pods(self, *slots: int) -> Self:
        """Ready Pods, each on its own node."""
        for slot in slots:
            name = f"node-{slot}"
            self.nodes.setdefault(name, NodeView(name, ready=True, ready_since=START, last_heartbeat=self.now))
            self.pods[slot] = PodView(
                name=f"gpt-{slot}",
                uid=f"pod-{slot}-{len(self.plans)}",
                slot=slot,
                phase=PodPhase.RUNNING,
                node=name,
                ready=True,
                created_at=self.now,
                address=f"10.0.0.{slot}",
                eagle_eye_port=9470,
            )
        return self

    def pod(self, slot: int, **fields: Any) -> Self:
        """Change a Pod."""
        self.pods[slot] = replace(self.pods[slot], **fields)
        return self

    def without_pod(self, slot: int) -> Self:
        del self.pods[slot]
        return self

    def node_unready(self, number: int, *, seconds: float, alive: bool = False) -> Self:
        """The node is not ready; its workers are heard of no more, unless they are `alive`."""
        since = self.now - timedelta(seconds=seconds)
        name = f"node-{number}"
        self.nodes[name] = NodeView(name, ready=False, ready_since=since, last_heartbeat=since)
        if self.progress is None or alive:
            return self
        gone = {each.index for each in self.progress.workers if each.node == name and each.index is not None}
        self.silent |= gone
        workers = [
            each.model_copy(update={"seen_at": since}) if each.index in gone else each for each in self.progress.workers
        ]
        self.progress = self.progress.model_copy(update={"workers": workers})
        return self

    def node_ready(self, number: int) -> Self:
        name = f"node-{number}"
        self.nodes[name] = NodeView(name, ready=True, ready_since=self.now, last_heartbeat=self.now)
        return self

    def node(self, number: int, **fields: Any) -> Self:
        """Change a node, which is made if it is not there."""
        name = f"node-{number}"
        known = self.nodes.get(name) or NodeView(name, ready=True, ready_since=START, last_heartbeat=self.now)
        self.nodes[name] = replace(known, **fields)
        return self

    def tainted(self, number: int, key: str, effect: str = "NoExecute", *, ago: float = 0) -> Self:
        """The node has one taint, this one."""
        taint = NodeTaint(key, effect, since=self.now - timedelta(seconds=ago))
        return self.node(number, taints=(taint,))

    def ill(self, number: int, *, ago: float = 0) -> Self:
        """The node's own conditions say that its hardware is bad."""
        since = self.now - timedelta(seconds=ago)
        condition = NodeCondition("GpuUnhealthy", "True", "Xid79", "the GPU has fallen off the bus", since)
        return self.node(number, conditions=(condition,))

    def tolerating(self, **toleration: Any) -> Self:
        """The template tolerates something."""
        template = {"spec": {**TEMPLATE["spec"], "tolerations": [toleration]}}
        return self.spec(template=template)

    def without_node(self, number: int) -> Self:
        del self.nodes[f"node-{number}"]
        return self

    def spec(self, **fields: Any) -> Self:
        self.job = self.job.model_copy(update={"spec": self.job.spec.model_copy(update=fields)})
        return self

    def being_deleted(self) -> Self:
        metadata = self.job.metadata.model_copy(update={"deletion_timestamp": self.now})
        self.job = self.job.model_copy(update={"metadata": metadata})
        return self

    def later(self, seconds: float) -> Self:
        """Time passes; whoever is heard of goes on being heard of."""
        self.now += timedelta(seconds=seconds)
        if self.progress is not None:
            workers = [
                each if each.index in self.silent else each.model_copy(update={"seen_at": self.now})
                for each in self.progress.workers
            ]
            self.progress = self.progress.model_copy(update={"at": self.now, "workers": workers})
        return self

    # What is reported

    def reported(
        self, state: LauncherState = LauncherState.RUNNING, *, started_after: float = 0, **fields: Any
    ) -> Self:
        """Worker 0 answers: all workers of the current attempt are in `state`."""
        assert self.attempt is not None
        started_at = self.now + timedelta(seconds=started_after)
        self.silent.clear()
        self.progress = ProgressReport(
            attempt=self.attempt.id,
            attempt_number=self.attempt.number,
            at=self.now,
            workers=[
                WorkerReport(
                    index=worker.index,
                    pod=worker.pod,
                    node=worker.node,
                    seen_at=self.now,
                    attempt=self.attempt.id,
                    launcher=state,
                    started_at=started_at,
                )
                for worker in self.attempt.workers
            ],
        )
        return self.progressed(**fields) if fields else self

    def progressed(self, **fields: Any) -> Self:
        assert self.progress is not None
        self.progress = self.progress.model_copy(update={"at": self.now, **fields})
        return self

    def at_step(self, step: int, *, first: int = 1, committed: int | None = None) -> Self:
        """The attempt has made steps from `first` on, the last one now."""
        first_at = self.progress.first_step_at if self.progress and self.progress.first_step_at else self.now
        return self.progressed(
            step=step,
            first_step=first,
            first_step_at=first_at,
            last_step_at=self.now,
            reports_steps=True,
            loss=1.5,
            checkpoint=CheckpointReport(committed_step=committed, committed_at=self.now if committed else None),
        )

    def restored(self, step: int) -> Self:
        return self.progressed(restored=RestoreReport(step=step, source="storage", at=self.now), reports_steps=True)

    def worker(self, index: int, **fields: Any) -> Self:
        """Change what is reported of a worker."""
        assert self.progress is not None
        workers = [each.model_copy(update=fields) if each.index == index else each for each in self.progress.workers]
        return self.progressed(workers=workers)

    def rank_failed(self, index: int, *, code: int = 1, ago: float = 0) -> Self:
        failure = RankExit(rank=index, exit_code=code, at=self.now - timedelta(seconds=ago))
        return self.worker(index, launcher=LauncherState.FAILED, first_failure=failure)

    def unanswered(self) -> Self:
        self.last_progress, self.progress = self.progress or self.last_progress, None
        return self

    def anomaly(
        self,
        kind: AnomalyKind,
        worker: int | None = None,
        *,
        evict: bool = False,
        attempt: str | None = None,
        **fields: Any,
    ) -> Self:
        assert self.attempt is not None
        spec = AnomalySpec(
            job="gpt",
            attempt=attempt or self.attempt.id,
            kind=kind,
            worker=worker,
            confidence=0.9,
            evict=evict,
            evidence="its compute time is three times the median",
            first_seen=self.now,
            last_seen=self.now,
        ).model_copy(update=fields)
        self.anomalies.append(AnomalyView(f"anomaly-{len(self.anomalies)}", spec))
        return self

    # Planning

    def plan(self) -> Plan:
        """Plan, check that planning again adds nothing, and take over the status and the Attempt object."""
        made = self.plan_only()
        self.job = self.job.model_copy(update={"status": made.status})
        again = self.plan_only()
        assert again.status == made.status
        assert again.actions == made.actions
        for action in made.actions:
            if isinstance(action, WriteAttempt):
                self.attempt = action.spec
        self.plans.append(made)
        return made

    def plan_only(self) -> Plan:
        """Plan, and change nothing: the operator was ended right after."""
        observed = Observed(
            pods=tuple(self.pods.values()),
            nodes=tuple(self.nodes.values()),
            attempt=self.attempt,
            anomalies=tuple(self.anomalies),
            progress=self.progress,
            last_progress=self.progress or self.last_progress,
            acknowledged_incidents=frozenset(self.acknowledged),
            node_history=self.node_history,
            drains=self.drains,
        )
        return plan(self.job, observed, self.now)

    def running(self, step: int = 10) -> Self:
        """All Pods are ready, attempt 1 runs and has made `step` steps."""
        total = self.job.spec.max_workers + self.job.spec.spares
        self.with_pods(*range(total)).plan()
        self.later(1).reported().plan()
        self.at_step(1).plan()
        self.later(20).at_step(step, committed=max(0, step - 3)).plan()
        return self

    @property
    def status(self) -> Any:
        return self.job.status

    def condition(self, kind: str) -> Any:
        return next((each for each in self.status.conditions if each.type == kind), None)


def created(made: Plan) -> list[int]:
    """Slots of the Pods to create."""
    return [action.slot for action in made.actions if isinstance(action, CreatePod)]


def deleted(made: Plan) -> list[str]:
    """Names of the Pods to delete."""
    return [action.name for action in made.actions if isinstance(action, DeletePod)]


def written(made: Plan) -> AttemptSpec | None:
    """The attempt to write."""
    found = [action.spec for action in made.actions if isinstance(action, WriteAttempt)]
    assert len(found) <= 1
    return found[0] if found else None


def told(made: Plan) -> list[str]:
    """Texts of the incidents to record."""
    return [action.incident.text for action in made.actions if isinstance(action, RecordIncident)]


def assignment(spec: AttemptSpec | None) -> dict[int, str]:
    """Pod by worker index."""
    assert spec is not None
    assert spec.action is AttemptAction.RUN
    return {worker.index: worker.pod for worker in spec.workers}
