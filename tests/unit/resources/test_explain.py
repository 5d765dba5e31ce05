from __future__ import annotations

import pytest
from pydantic import ValidationError

from sternpost_operator.resources.anomaly import Anomaly
from sternpost_operator.resources.explain import explain_error, field_names, shown, unknown_field
from sternpost_operator.resources.training_job import TrainingJob


def test_field_names_are_those_on_the_wire() -> None:
    assert field_names(TrainingJob, ("spec", "recovery", "rules", 3)) == ["exitCodes", "action"]
    assert "ranksPerWorker" in field_names(TrainingJob, ("spec",))
    assert field_names(TrainingJob, ("spec", "nothing", "here")) == []
    assert field_names(TrainingJob, ("spec", "workers")) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wokers", "unknown field; did you mean workers?"),
        ("shared_memory", "unknown field; did you mean sharedMemory?"),
        ("zzz", "unknown field; allowed are sharedMemory, workers"),
    ],
)
def test_unknown_fields(name: str, message: str) -> None:
    assert unknown_field(name, ["workers", "sharedMemory"]) == message


def test_values_are_shown_shortly() -> None:
    assert shown({"a": 1}) == "an object"
    assert shown([1]) == "a list"
    assert shown(False) == "false"
    assert len(shown("x" * 1000)) < 100


def test_other_models_are_explained_too() -> None:
    with pytest.raises(ValidationError) as caught:
        Anomaly.model_validate_json(
            '{"metadata": {"name": "a"}, "spec": {"job": "j", "attempt": "1-a", "kind": "hang", "confidence": 2,'
            ' "evidence": "", "firstSeen": "yesterday", "lastSeen": "2026-01-02T03:04:05"}}'
        )
    found = dict(explain_error(Anomaly, error) for error in caught.value.errors())
    assert found["spec", "confidence"] == "is 2; must be at most 1.0"
    assert "is 'yesterday'; " in found["spec", "firstSeen"]
    assert "timezone" in found["spec", "lastSeen"]
