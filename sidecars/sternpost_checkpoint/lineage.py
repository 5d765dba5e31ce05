"""Which generations belong to the history that the training is on. Pure.

Every start of the training registers a *run*: a number, one higher than any before, and the generation it restored.
A generation that an older run saved beyond that point has been abandoned: the training went on without it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Generation:
    """A saved state. The order is that of the training: later steps first decide, then later runs."""

    step: int
    run: int


@dataclass(frozen=True)
class Run:
    """A registered start of the training."""

    number: int
    restored_step: int
    """0 when it started afresh."""
    job_uid: str
    attempt_number: int
    attempt_id: str


def eligible(generation: Generation, runs: Iterable[Run]) -> bool:
    """Whether the generation is on the line that leads to the newest run: no later run began before its step."""
    return all(run.number <= generation.run or run.restored_step >= generation.step for run in runs)


def newest(generations: Iterable[Generation], runs: Iterable[Run]) -> Generation | None:
    """The newest eligible generation."""
    known = list(runs)
    return max((generation for generation in generations if eligible(generation, known)), default=None)


def superseded_by(runs: Iterable[Run], job_uid: str, attempt_number: int) -> Run | None:
    """A registered run of a later attempt of the same job; such an attempt may not start any more."""
    later = [run for run in runs if run.job_uid == job_uid and run.attempt_number > attempt_number]
    return max(later, key=lambda run: run.number, default=None)
