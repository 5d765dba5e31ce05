from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_operator.resources.quantity import from_wire, parse_bytes, parse_quantity


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("1.5Gi", 1.5 * 2**30), ("512Mi", 2**29), ("1k", 1000), ("1500m", 1.5), ("2T", 2 * 10**12)],
)
def test_numbers(text: str, number: float) -> None:
    assert parse_quantity(text) == Decimal(str(number))


def test_bytes_are_rounded_down() -> None:
    assert parse_bytes("1500m") == 1


@pytest.mark.parametrize("text", ["", "Mi", "-1", "1 Mi", "1mi", "1e3", "1Mi\n", "0x10", "9" * 500 + "x"])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        parse_quantity(text)


@given(st.integers(0, 2**60))
@settings(deadline=None, max_examples=30)
def test_whole_numbers_on_the_wire_are_quantities(number: int) -> None:
    assert parse_quantity(str(from_wire(number))) == number


def test_a_truth_value_is_no_quantity() -> None:
    assert from_wire(True) is True
