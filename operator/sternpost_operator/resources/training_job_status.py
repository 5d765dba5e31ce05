"""The status of a TrainingJob. Its size does not depend on the number of workers."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field

from sternpost_operator.resources.base import Model, Time, list_map

MAX_CONDITIONS = 16
MAX_ATTEMPTS = 20
MAX_EXCEPTIONS = 20
MAX_NODES = 100
MAX_UNSENT_INCIDENTS = 50


class Phase(StrEnum):
    """Where the job is. SUCCEEDED and FAILED are final."""

    PENDING = "Pending"
    """Pods are being created and scheduled; no ranks yet."""
    STARTING = "Starting"
    """An attempt was issued; not all ranks have reported."""
    RUNNING = "Running"
    RECOVERING = "Recovering"
    """A failure was decided upon; the next attempt is being prepared."""
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"

    @property
    def terminal(self) -> bool:
        """Whether no later phase can follow."""
        return self in (Phase.SUCCEEDED, Phase.FAILED)


class Cause(StrEnum):
    """Why an attempt ended."""

    NODE_LOST = "NodeLost"
    POD_LOST = "PodLost"
    RANK_FAILED = "RankFailed"
    HANG = "Hang"
    SLOW_NODE = "SlowNode"
    NODE_UNHEALTHY = "NodeUnhealthy"
    """Evidence other than slowness named the node: hardware, stalls, an outlier."""
    NODE_LEAVING = "NodeLeaving"
    """The node, or the Pod, is about to go and announced it: maintenance, preemption, a drain. No fault of the node."""
    WORKER_SILENT = "WorkerSilent"
    START_TIMEOUT = "StartTimeout"
    SPEC_CHANGED = "SpecChanged"
    SUSPENDED = "Suspended"


class Rung(StrEnum):
    """The rungs of the recovery ladder, from the quickest to the last."""

    RANKS = "ranks"
    PODS = "pods"
    JOB = "jobs"


class Condition(Model):
    """As in Kubernetes; the list's key is `type`."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str = ""
    message: str = ""
    last_transition_time: Time


class CurrentAttempt(Model):
    """The attempt that counts; holders of any other id are refused."""

    number: int = 0
    id: str = ""
    issued_at: Time | None = None
    running_at: Time | None = None
    """When all its ranks had reported."""
    first_step_at: Time | None = None
    last_step_at: Time | None = None
    first_step: int | None = None
    last_step: int | None = None
    restored_step: int | None = None
    assignment: str = ""
    """Digest of which Pod is which worker, from the decision to `run` on: one id never stands for two assignments."""


class Recovery(Model):
    """A failure that was noticed, and from `decidedAt` on what was decided; gone when the next attempt makes its first step."""

    detected_at: Time
    decided_at: Time | None = None
    cause: Cause | None = None
    rung: Rung | None = None
    node: str | None = None
    worker: int | None = None
    message: str = ""
    replace: list[str] = Field(default_factory=list, max_length=64)
    """Uids of Pods that must go although their node stays."""
    replace_all: bool = False
    """Every Pod must go first; false again once the last one is gone."""
    again_at: Time | None = None
    """When a failure of the very attempt that was to recover was noticed; not decided upon yet."""
    save_at_step: int | None = None
    """A node announced that it goes: the job saves a checkpoint after this step, and is moved then."""
    save_by: Time | None = None
    """When it is moved at the latest."""

    @property
    def noticed_at(self) -> datetime | None:
        """When the failure that is not decided upon yet was noticed, if there is one."""
        return self.detected_at if self.decided_at is None else self.again_at


class Progress(Model):
    """Written at most once a minute and on each transition."""

    step: int | None = None
    steps_per_second: float | None = None
    loss: float | None = None
    training_phase: str | None = None
    updated_at: Time | None = None


class CheckpointStatus(Model):
    """The newest committed generation."""

    last_step: int | None = None
    committed_at: Time | None = None
    location: str | None = None


class WorkerException(Model):
    """A worker that is not as it should be."""

    pod: str
    node: str | None = None
    worker: int | None = None
    reason: str


class Workers(Model):
    """Counts, and the first exceptions."""

    desired: int = 0
    ready: int = 0
    running: int = 0
    succeeded: int = 0
    spares_ready: int = 0
    exceptions: list[WorkerException] = Field(default_factory=list, max_length=MAX_EXCEPTIONS)


class BudgetsUsed(Model):
    """What each rung has cost so far. It never falls."""

    ranks: int = 0
    pods: int = 0
    jobs: int = 0


class Stages(Model):
    """Seconds of each stage of one recovery; unset while unknown."""

    detect: float | None = None
    """From the last sign of health to the first sign of the failure."""
    decide: float | None = None
    terminate: float | None = None
    """Until the old ranks were gone."""
    delete: float | None = None
    """From the decision until the last Pod that had to go was gone; unset where none had to."""
    create: float | None = None
    """From the decision until every Pod that takes a place of theirs existed; unset where none had to go."""
    ready: float | None = None
    """From the decision until all workers were ready and the next attempt was told to run."""
    start: float | None = None
    """Until all new ranks ran."""
    restore: float | None = None
    """Until the state was restored."""
    first_step: float | None = None


class AttemptRecord(Model):
    """How one attempt ended and the next came up."""

    number: int
    """Number of the attempt that ended."""
    id: str
    cause: Cause
    rung: Rung | None = None
    node: str | None = None
    worker: int | None = None
    message: str = ""
    detected_at: Time
    decided_at: Time
    stages: Stages = Field(default_factory=Stages)
    last_step: int | None = None
    """Last step it completed."""
    resumed_step: int | None = None
    """Step that the next attempt restored."""
    lost_steps: int | None = None
    first_step: int | None = None
    """First step it completed."""
    step_seconds: float = 0
    """From its first step to its last."""


class ExcludedNode(Model):
    """A node without workers of this job until `until`."""

    node: str
    since: Time
    until: Time
    reason: str = ""
    attempt: int = 0
    proven: bool = False
    """Whether the node itself said so, by a condition. Only that is reason to cordon it for everybody."""
    count: int = 1
    """How often it has been excluded by now, by whatever job, as far as the memory service knows."""


class SuspectedNode(Model):
    """A node that was blamed once and may stay; the next blame excludes it."""

    node: str
    count: int = 1
    last_at: Time
    until: Time | None = None
    """When the suspicion is forgotten."""
    reason: str = ""


class Incident(Model):
    """An observation for the memory service that it has not yet acknowledged."""

    id: str
    """Idempotency key."""
    at: Time
    text: str
    node: str | None = None
    cause: str | None = None
    """Set where an attempt was ended: a fact about the node, or the job, with its history."""
    excluded: str | None = None
    """Set where a node was excluded, with the reason in one word: a fact about the node, to be counted later."""


class Goodput(Model):
    """Share of the time since the start that went into steps which count."""

    productive_seconds: float = 0
    total_seconds: float = 0
    ratio: float = 0
    settled_seconds: float = 0
    """The part of `productiveSeconds` that ended attempts contributed."""


class TrainingJobStatus(Model):
    """Written once a reconcile, before the actions."""

    phase: Phase = Phase.PENDING
    observed_generation: int = 0
    conditions: list[Condition] = Field(
        default_factory=list, max_length=MAX_CONDITIONS, json_schema_extra=list_map("type")
    )
    attempt: CurrentAttempt = Field(default_factory=CurrentAttempt)
    recovery: Recovery | None = None
    progress: Progress | None = None
    checkpoint: CheckpointStatus | None = None
    workers: Workers = Field(default_factory=Workers)
    budgets: BudgetsUsed = Field(default_factory=BudgetsUsed)
    restarts: int = 0
    attempts: list[AttemptRecord] = Field(
        default_factory=list, max_length=MAX_ATTEMPTS, json_schema_extra=list_map("number")
    )
    lost_steps: int = 0
    excluded_nodes: list[ExcludedNode] = Field(
        default_factory=list, max_length=MAX_NODES, json_schema_extra=list_map("node")
    )
    suspected_nodes: list[SuspectedNode] = Field(
        default_factory=list, max_length=MAX_NODES, json_schema_extra=list_map("node")
    )
    unsent_incidents: list[Incident] = Field(
        default_factory=list, max_length=MAX_UNSENT_INCIDENTS, json_schema_extra=list_map("id")
    )
    goodput: Goodput = Field(default_factory=Goodput)
    started_at: Time | None = None
    finished_at: Time | None = None
