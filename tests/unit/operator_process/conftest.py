from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sternpost_operator.resources.training_job import TrainingJob
from sternpost_operator.resources.training_job_status import AttemptRecord, Cause, Rung, Stages, TrainingJobStatus

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def at() -> Callable[[float], datetime]:
    """Seconds after the start as an instant."""
    return lambda seconds: START + timedelta(seconds=seconds)


@pytest.fixture
def job() -> Callable[..., TrainingJob]:
    """A job with this status, and more fields of the spec as on the wire."""

    def build(status: TrainingJobStatus | None = None, **spec: Any) -> TrainingJob:
        trainer = {"name": "trainer", "image": "train:1", "command": ["train"]}
        return TrainingJob.model_validate(
            {
                "metadata": {"name": "gpt", "namespace": "team", "uid": "u-1"},
                "spec": {"workers": 2, "template": {"spec": {"containers": [trainer]}}, **spec},
                "status": status or TrainingJobStatus(),
            }
        )

    return build


@pytest.fixture
def record(at: Callable[[float], datetime]) -> Callable[..., AttemptRecord]:
    """How an attempt ended."""

    def build(number: int, *, rung: Rung | None = Rung.PODS, **stages: float) -> AttemptRecord:
        return AttemptRecord(
            number=number,
            id=f"{number}-abc",
            cause=Cause.NODE_LOST,
            rung=rung,
            node="node-1",
            worker=1,
            message="node node-1 has not been ready for 10 s",
            detected_at=at(number),
            decided_at=at(number + 1),
            stages=Stages.model_validate(stages),
        )

    return build
