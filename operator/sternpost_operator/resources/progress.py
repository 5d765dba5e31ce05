"""What worker 0's eagle-eye answers to `GET /v1/progress`. Unknown fields are ignored: the sidecar may be newer."""

from __future__ import annotations

from enum import StrEnum

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from sternpost_operator.resources.base import Model, Time


class _Lenient(Model):
    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=to_camel, populate_by_name=True)


class LauncherState(StrEnum):
    """What a worker's launcher last said of itself."""

    UNKNOWN = "unknown"
    WAITING = "waiting"
    """No attempt yet, or on hold; no ranks are alive."""
    IDLE = "idle"
    """A spare of the current attempt; no ranks are alive."""
    PREFLIGHT = "preflight"
    RUNNING = "running"
    STOPPING = "stopping"
    FAILED = "failed"
    """A rank failed, or a preflight check; no ranks are alive. Waits for the next attempt."""
    SUCCEEDED = "succeeded"


class RankExit(_Lenient):
    """The first rank of a worker that failed."""

    rank: int
    exit_code: int
    """-N when ended by signal N."""
    at: Time


class WorkerReport(_Lenient):
    """One worker, as its own sidecar last described it."""

    index: int | None = None
    """Unset for a spare."""
    pod: str
    node: str
    seen_at: Time
    """When worker 0 last heard of it."""
    attempt: str = ""
    """Id of the attempt that its launcher is at; the state below belongs to it."""
    launcher: LauncherState = LauncherState.UNKNOWN
    message: str = ""
    """Why it failed, in words."""
    terminated_at: Time | None = None
    """When the last rank of the attempt before was gone."""
    started_at: Time | None = None
    """When its ranks of this attempt had been started."""
    first_failure: RankExit | None = None
    step: int | None = None
    """Steps completed."""
    phase: str | None = None


class RestoreReport(_Lenient):
    """What the trainer restored at the start of this attempt."""

    step: int
    seconds: float | None = None
    source: str = "none"
    """`shared-memory`, `peer`, `storage` or `none`."""
    at: Time


class CheckpointReport(_Lenient):
    """Saves of this attempt, and the newest committed generation."""

    saves: int = 0
    blocked_seconds_sum: float = 0
    blocked_seconds_last: float | None = None
    committed_step: int | None = None
    committed_at: Time | None = None
    problem: str | None = None
    """Why a worker's last save, commit or fetch failed."""


class ProgressReport(_Lenient):
    """The whole job, as worker 0 sees it."""

    attempt: str
    attempt_number: int
    at: Time
    step: int | None = None
    """The last step that all workers have completed."""
    steps_per_second: float | None = None
    loss: float | None = None
    phase: str | None = None
    first_step: int | None = None
    first_step_at: Time | None = None
    last_step_at: Time | None = None
    reports_steps: bool = False
    """Whether any trainer serves step metrics."""
    restored: RestoreReport | None = None
    checkpoint: CheckpointReport = Field(default_factory=CheckpointReport)
    workers: list[WorkerReport] = Field(default_factory=list)
