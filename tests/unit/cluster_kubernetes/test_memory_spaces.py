"""A job cannot choose whom the operator's token is shown to, nor write into another tenant's memory."""

from __future__ import annotations

from typing import Any

import pytest

from sternpost_operator.cluster.kubernetes.memory_spaces import MemorySpaces
from sternpost_operator.resources.base import ObjectMeta
from sternpost_operator.resources.training_job import TrainingJob, TrainingJobSpec

SPACES = MemorySpaces("http://memory.example:8765", "sternpost-system", frozenset({"shared"}))


def job(namespace: str = "team-a", **memory: Any) -> TrainingJob:
    template = {"spec": {"containers": [{"name": "trainer", "command": ["true"]}]}}
    spec = TrainingJobSpec.model_validate({"workers": 1, "template": template, "memory": memory})
    return TrainingJob(metadata=ObjectMeta(name="gpt", namespace=namespace), spec=spec)


def test_the_space_is_the_namespace() -> None:
    assert SPACES.space(job()) == "team-a"
    assert SPACES.space(job("default")) == "default"
    assert SPACES.problems(job()) == ()


@pytest.mark.parametrize("space", ["team-a", "shared"])
def test_the_own_space_and_shared_ones_may_be_named(space: str) -> None:
    assert SPACES.space(job(space=space)) == space
    assert SPACES.problems(job(space=space)) == ()


@pytest.mark.parametrize("space", ["team-b", "sternpost-system"])
def test_no_other_space_may_be_named(space: str) -> None:
    (problem,) = SPACES.problems(job(space=space))
    assert problem.startswith(f"spec.memory.space: {space} ")


def test_default_is_a_space_of_its_own_only_where_it_is_shared() -> None:
    assert MemorySpaces("http://m", "s", frozenset({"default"})).space(job()) == "default"


@pytest.mark.parametrize("url", ["http://attacker.example", "http://memory.example:8765.attacker.example"])
def test_the_token_is_shown_to_no_other_service(url: str) -> None:
    (problem,) = SPACES.problems(job(url=url))
    assert problem.startswith("spec.memory.url: ")


@pytest.mark.parametrize("url", ["", "http://memory.example:8765", "http://memory.example:8765/"])
def test_the_operators_own_service_may_be_named(url: str) -> None:
    assert SPACES.problems(job(url=url)) == ()
