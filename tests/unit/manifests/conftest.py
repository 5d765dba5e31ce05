from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sternpost_operator.manifests.images import Images
from sternpost_operator.resources.training_job import TrainingJob


@pytest.fixture
def images() -> Images:
    return Images.of_version("1.2.3")


@pytest.fixture
def make_job() -> Callable[..., TrainingJob]:
    """A job of two workers and a spare; arguments are fields of the spec, `trainer` and `pod` go into the template."""

    def make(*, trainer: dict[str, Any] | None = None, pod: dict[str, Any] | None = None, **spec: Any) -> TrainingJob:
        container = {"name": "trainer", "image": "gpt", "command": ["python3", "train.py"], **(trainer or {})}
        template = {"spec": {"containers": [container], **(pod or {})}}
        return TrainingJob.model_validate(
            {
                "metadata": {"name": "gpt", "namespace": "team", "uid": "job-uid"},
                "spec": {"workers": 2, "spares": 1, "template": template, **spec},
            }
        )

    return make
