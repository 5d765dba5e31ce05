from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from sternpost_operator.local_run.snapshot import LoopState, Snapshot
from sternpost_operator.recovery.observed import NodeView, Observed
from sternpost_operator.resources.training_job import TrainingJob
from sternpost_operator.resources.training_job_status import TrainingJobStatus

START = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def at() -> Callable[[float], datetime]:
    """Seconds after the start as an instant."""
    return lambda seconds: START + timedelta(seconds=seconds)


@pytest.fixture
def job() -> TrainingJob:
    return TrainingJob.model_validate(
        {
            "metadata": {"name": "gpt", "uid": "u-1"},
            "spec": {
                "workers": 2,
                "spares": 1,
                "template": {"spec": {"containers": [{"name": "trainer", "command": ["train"]}]}},
                "checkpoint": {"storage": "file://./checkpoints", "sharedMemory": "64Mi"},
            },
        }
    )


@pytest.fixture
def snapshot(job: TrainingJob, at: Callable[[float], datetime]) -> Callable[..., Snapshot]:
    """A snapshot `seconds` after the start, with a status and nodes by name and readiness."""

    def build(
        seconds: float,
        status: TrainingJobStatus | None = None,
        nodes: dict[str, bool] | None = None,
        **more: object,
    ) -> Snapshot:
        observed = more.pop("observed", None) or Observed(
            nodes=tuple(NodeView(name, ready, at(0)) for name, ready in (nodes or {}).items())
        )
        state = LoopState(
            at=at(seconds).timestamp(),
            job=job.model_copy(update={"status": status or TrainingJobStatus()}),
            observed=observed,
        )
        return Snapshot(at=at(seconds).timestamp(), started_at=at(0).timestamp(), loop=state, **more)

    return build
