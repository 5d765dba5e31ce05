"""What a reconcile sees: small projections of the cluster's objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sternpost_operator.resources.anomaly import AnomalySpec
from sternpost_operator.resources.attempt import AttemptSpec
from sternpost_operator.resources.progress import ProgressReport


class PodPhase(StrEnum):
    """As in Kubernetes."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


@dataclass(frozen=True)
class PodView:
    """A Pod object of the job. Its name is `JOB-SLOT`; whether it is a worker, and which, the Attempt says."""

    name: str
    uid: str
    slot: int
    phase: PodPhase
    node: str | None = None
    ready: bool = False
    """All sidecars and the launcher run."""
    deleting_since: datetime | None = None
    created_at: datetime | None = None
    address: str | None = None
    eagle_eye_port: int | None = None
    ring_port: int | None = None
    trainer_exit_code: int | None = None
    """Of the trainer container if it is terminated now, or when it was last; -N for signal N."""
    trainer_restarts: int = 0
    """How often the kubelet restarted the trainer container."""
    reason: str = ""
    """Why it is pending or failed, in words: `Unschedulable: ...`, `OOMKilled`."""
    excluded_nodes: tuple[str, ...] = ()
    """Nodes that it was created to avoid: while it waits unscheduled, an exclusion that ended makes it obsolete."""
    disruption: str = ""
    """`REASON: MESSAGE` of the Pod's condition `DisruptionTarget=True`: somebody is about to end it."""


@dataclass(frozen=True)
class NodeCondition:
    """A condition of a node, as in Kubernetes."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    since: datetime | None = None
    """When it took this status."""


@dataclass(frozen=True)
class NodeTaint:
    """A taint of a node, as in Kubernetes."""

    key: str
    effect: str
    value: str = ""
    since: datetime | None = None
    """When it was added; only known of `NoExecute`."""


@dataclass(frozen=True)
class NodeView:
    """A node that has, or could have, workers of the job."""

    name: str
    ready: bool
    ready_since: datetime
    """Since when `ready` has had its value."""
    last_heartbeat: datetime | None = None
    unschedulable: bool = False
    """Cordoned, by whomever."""
    conditions: tuple[NodeCondition, ...] = ()
    """Only those that the operator's configuration calls evidence of bad hardware."""
    taints: tuple[NodeTaint, ...] = ()


@dataclass(frozen=True)
class AnomalyView:
    """An Anomaly object of the job, of whatever attempt."""

    name: str
    spec: AnomalySpec


@dataclass(frozen=True)
class Observed:
    """Everything that `plan` may look at, beside the job itself."""

    pods: tuple[PodView, ...] = ()
    nodes: tuple[NodeView, ...] = ()
    attempt: AttemptSpec | None = None
    """The Attempt object as it is written now."""
    anomalies: tuple[AnomalyView, ...] = ()
    progress: ProgressReport | None = None
    """Worker 0's answer; None when it did not answer."""
    last_progress: ProgressReport | None = None
    """The newest answer so far, kept while worker 0 does not answer: only the last step is read from it."""
    acknowledged_incidents: frozenset[str] = field(default_factory=frozenset)
    """Ids that the memory service has taken."""
    node_history: Mapping[str, int] = field(default_factory=dict)
    """How often each node was excluded before, by whatever job, as the memory service tells; unknown of the others."""
    drains: Mapping[str, str] = field(default_factory=dict)
    """Why the drain of a node does not get on, by node."""
