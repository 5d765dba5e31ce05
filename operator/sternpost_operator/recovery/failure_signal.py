"""One sign of a failure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from sternpost_operator.recovery.leaving import Leaving
from sternpost_operator.resources.attempt import AttemptWorker
from sternpost_operator.resources.training_job_status import Cause


@dataclass(frozen=True)
class Signal:
    """What was seen, since when, and whom it blames."""

    cause: Cause
    at: datetime
    """When the evidence says that it began: of several signs with the same cause, the earliest is the cause."""
    message: str
    worker: AttemptWorker | None = None
    """The worker to blame, or None where nothing names one."""
    blames_node: bool = False
    """Whether the evidence is against the node and not only against what runs on it."""
    proven: bool = False
    """Whether the node itself says so, and not somebody of it: then it is believed also where most nodes are blamed."""
    replace: bool = False
    """Whether the Pod cannot be used again."""
    decisive: bool = False
    """Whether no other evidence is waited for."""
    patience_seconds: float = 0
    """How long to wait for other evidence, from the first sign on."""
    leaving: Leaving | None = None
    """The announcement that it rests on: certain, but with time for a checkpoint as long as the sign is not decisive."""
    exit_code: int | None = None
    healthy_at: datetime | None = None
    """The last sign of health before."""
    pod_uid: str | None = None
    """The Pod to blame where it is no worker yet."""
    pod_node: str | None = None

    @property
    def node(self) -> str | None:
        """The node it happened on."""
        return self.worker.node if self.worker else self.pod_node

    @property
    def uid(self) -> str | None:
        """Uid of the Pod it happened to."""
        return self.worker.uid if self.worker else self.pod_uid

    def made_decisive(self) -> Signal:
        """The same, but nothing else is waited for."""
        return replace(self, decisive=True)
