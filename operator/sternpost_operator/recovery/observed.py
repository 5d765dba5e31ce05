"""What a reconcile sees: small projections of the cluster's objects."""

from __future__ import annotations

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
    trainer_exit_code: int | None = None
    """Of the trainer container if it is terminated now, or when it was last; -N for signal N."""
    trainer_restarts: int = 0
    """How often the kubelet restarted the trainer container."""
    reason: str = ""
    """Why it is pending or failed, in words: `Unschedulable: ...`, `OOMKilled`."""
    excluded_nodes: tuple[str, ...] = ()
    """Nodes that it was created to avoid: while it waits unscheduled, an exclusion that ended makes it obsolete."""


@dataclass(frozen=True)
class NodeView:
    """A node that has, or could have, workers of the job."""

    name: str
    ready: bool
    ready_since: datetime
    """Since when `ready` has had its value."""
    last_heartbeat: datetime | None = None


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
