"""What the operator loop saw and decided last: one file that the supervisor, the view and the report read."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field, ValidationError

from sternpost_operator.recovery.observed import Observed
from sternpost_operator.resources.base import Model
from sternpost_operator.resources.training_job import TrainingJob

MAX_BYTES = 16 * 1024 * 1024


class LoopState(Model):
    """One reconcile of the operator loop, as `progress.json` holds it."""

    at: float
    """Unix seconds."""
    reconciles: int = 0
    """How many this process has done."""
    job: TrainingJob
    observed: Observed = Field(default_factory=Observed)


class Injected(Model):
    """A line of the injection journal: what was done, when, to whom."""

    id: str
    spec: str
    kind: str
    at: float
    """Unix seconds."""
    node: str | None = None
    worker: int | None = None
    pids: list[int] = Field(default_factory=list)
    factor: float | None = None
    what: str
    """In words, for the timeline."""


@dataclass(frozen=True)
class Snapshot:
    """Everything that is known of a run at one moment."""

    at: float
    """Unix seconds."""
    started_at: float
    """Of the first run of this job, in Unix seconds; a resumed run keeps it."""
    loop: LoopState | None = None
    injected: tuple[Injected, ...] = ()
    dead_nodes: tuple[str, ...] = ()
    """Nodes that are gone for good."""
    placed: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Pod and node of each worker in the last attempt that had any."""
    restarted: tuple[tuple[str, int], ...] = ()
    """Parts of Sternpost on this machine, and how often each was started again."""

    @property
    def seconds(self) -> float:
        """Since the start of the job."""
        return max(0.0, self.at - self.started_at)

    @property
    def slowed(self) -> dict[str, float]:
        """Nodes that an injection slows, and by which factor."""
        return {each.node: each.factor for each in self.injected if each.node and each.factor is not None}

    @property
    def step(self) -> int | None:
        """The last step that all workers have completed; what `step=` of an injection is compared with."""
        if self.loop is None:
            return None
        steps = [self.loop.job.status.attempt.last_step]
        if self.loop.observed.last_progress is not None:
            steps.append(self.loop.observed.last_progress.step)
        return max((step for step in steps if step is not None), default=None)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file so that a reader sees the old or the new content, never a part; no fsync, a crash may lose it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def save(path: Path, state: LoopState) -> None:
    """Write the operator loop's file."""
    write_atomically(path, state.model_dump_json(by_alias=True, exclude_none=True).encode())


def load(path: Path) -> LoopState | None:
    """Read the operator loop's file; None while there is none, or when it is not one."""
    try:
        if path.stat().st_size > MAX_BYTES:
            return None
        return LoopState.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
