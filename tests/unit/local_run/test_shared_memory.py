from __future__ import annotations

import pytest

from sternpost_operator.local_run.shared_memory import check
from sternpost_operator.local_run.state import StateError
from sternpost_operator.resources.training_job import TrainingJob

MIB = 2**20


def test_enough(job: TrainingJob) -> None:
    check(job.spec, 3 * 64 * MIB)


def test_too_small_names_the_numbers_and_the_way_out(job: TrainingJob) -> None:
    with pytest.raises(
        StateError, match=r"sharedMemory is 64Mi for each of 3 Pods, 192 MiB.*96 MiB free.*32Mi.*remount"
    ):
        check(job.spec, 96 * MIB)


def test_missing(job: TrainingJob) -> None:
    with pytest.raises(StateError, match="missing"):
        check(job.spec, None)


def test_without_checkpoints_nothing_is_asked_for(job: TrainingJob) -> None:
    check(job.spec.model_copy(update={"checkpoint": None}), 0)
