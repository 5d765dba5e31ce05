from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from sternpost_memory.model import NewObservation, Observation


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", ""),
        ("text", "  \n"),
        ("text", "é" * (8 * 1024 + 1)),
        ("text", "\ud800"),
        ("occurredAt", float("nan")),
        ("occurredAt", float("inf")),
        ("occurredAt", -1),
        ("occurredAt", 1e12),
        ("source", "two\nlines"),
        ("entities", ["node/../x"]),
        ("entities", ["/node"]),
        ("entities", ["node//x"]),
        ("entities", [" node"]),
        ("entities", [""]),
        ("entities", ["a\u2028b"]),
        ("entities", ["x" * 201]),
        ("entities", ["x"] * 33),
        ("attributes", {"": 1}),
        ("attributes", {"a": None}),
        ("attributes", {"a": [1]}),
        ("attributes", {"a": float("inf")}),
        ("attributes", {"a": 2**70}),
        ("attributes", {"a": "x" * 4097}),
        ("attributes", {"a\n- forged": 1}),
        ("unknown", 1),
    ],
)
def test_refuses(field: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        NewObservation.model_validate({"text": "x", field: value})


@pytest.mark.parametrize("value", [True, 1, 1.5, "1", -(2**63) + 1])
def test_a_value_keeps_its_type(value: Any) -> None:
    kept = NewObservation(text="x", attributes={"a": value}).attributes["a"]
    assert kept == value
    assert type(kept) is type(value)


def test_text_of_exactly_the_limit_is_kept() -> None:
    assert NewObservation(text="é" * 8 * 1024).text


@pytest.mark.parametrize(("occurred", "expected"), [(None, 100.0), (50.0, 50.0), (100.0, 100.0), (5000.0, 100.0)])
def test_a_time_in_the_future_is_not_believed(occurred: float | None, expected: float) -> None:
    assert Observation(text="x", seq=1, received_at=100.0, occurred_at=occurred).event_time == expected
