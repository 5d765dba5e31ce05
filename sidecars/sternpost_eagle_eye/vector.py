"""The compact vector: all that a sidecar tells worker 0 about its own worker, once a second. Bounded in every part."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from sternpost_eagle_eye.wire import Count, Finite, Seconds, ShortText, Wire

MAX_VECTOR_BYTES = 256 * 1024
MAX_RANKS = 64

LauncherState = Literal["unknown", "waiting", "idle", "preflight", "running", "stopping", "failed", "succeeded"]
TrainingPhase = Literal["init", "train", "eval", "checkpoint"]
RankNumber = Annotated[int, Field(ge=0, le=10_000_000)]


class PageState(StrEnum):
    """What came of scraping a trainer's page."""

    OK = "ok"
    NONE = "none"
    """Nothing listens there: the trainer does not use the StepReporter, or not yet."""
    TIMEOUT = "timeout"
    """Somebody listens and does not answer."""
    ERROR = "error"
    GARBAGE = "garbage"
    TOO_LARGE = "too-large"
    OTHER = "other"
    """The page of another rank or attempt."""
    UNREAD = "unread"
    """Not asked: no ranks are running."""


class ProcessVector(Wire):
    """A rank's process and its descendants, where the sidecar can see them."""

    alive: bool
    stopped: bool = False
    """Stopped by a signal or a tracer."""
    cpu_seconds: Seconds = 0


class RankVector(Wire):
    """One rank: what its trainer's page says, and its process."""

    rank: RankNumber
    page: PageState = PageState.UNREAD
    step: Count | None = None
    loss: float | None = None
    grad_norm: float | None = None
    phase: TrainingPhase | None = None
    in_collective: bool | None = None
    last_step_at: Finite | None = None
    first_step: Count | None = None
    first_step_at: Finite | None = None
    step_sum: Seconds | None = None
    step_count: Count | None = None
    compute_sum: Seconds | None = None
    compute_count: Count | None = None
    samples: Seconds | None = None
    blocked_sum: Seconds | None = None
    blocked_count: Count | None = None
    restored_step: int | None = Field(None, ge=-1, le=2**53)
    restore_seconds: Seconds | None = None
    restore_at: Finite | None = None
    restore_source: Literal["shared-memory", "peer", "storage", "none"] | None = None
    process: ProcessVector | None = None


class RankProcess(Wire):
    """One rank in `launcher.json`."""

    rank: RankNumber
    local_rank: int = Field(ge=0, lt=MAX_RANKS)
    pid: int | None = Field(None, ge=1)
    exit_code: int | None = Field(None, ge=-1000, le=1000)
    exited_at: Finite | None = None


class LauncherVector(Wire):
    """`launcher.json`, as far as worker 0 needs it."""

    attempt: Annotated[str, Field(max_length=128)] = ""
    state: LauncherState = "unknown"
    message: Annotated[str, Field(max_length=1024)] = ""
    updated_at: Finite
    terminated_at: Finite | None = None
    started_at: Finite | None = None
    ranks: tuple[RankProcess, ...] = Field(default=(), max_length=MAX_RANKS)


class MachineVector(Wire):
    """The machine as psutil sees it; totals are counters since boot."""

    cpu_busy: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of all processors since the vector before."""
    load: Seconds | None = None
    """One minute load average."""
    memory_total: Count | None = None
    memory_available: Count | None = None
    shared_memory_total: Count | None = None
    shared_memory_free: Count | None = None
    network_received: Count | None = None
    network_sent: Count | None = None


class CheckpointVector(Wire):
    """The checkpoint sidecar's page."""

    committed_step: Count | None = None
    committed_at: Finite | None = None
    raw_bytes: Seconds | None = None
    stored_bytes: Seconds | None = None
    problem: Annotated[str, Field(max_length=512)] | None = None
    """Why the last save, commit or fetch failed."""


class Vector(Wire):
    """One worker (or spare) at one instant."""

    attempt: Annotated[str, Field(min_length=1, max_length=128)]
    """Id of the attempt the sender believes to be current; worker 0 refuses any but its own."""
    pod_uid: ShortText
    boot: ShortText
    """Names the run of the sending sidecar."""
    sequence: Count
    """Grows within a boot."""
    launcher: LauncherVector | None = None
    ranks: tuple[RankVector, ...] = Field(default=(), max_length=MAX_RANKS)
    machine: MachineVector | None = None
    checkpoint: CheckpointVector | None = None
    dropped: Count = 0
    """Samples and pages that made no sense, since the sidecar started."""
