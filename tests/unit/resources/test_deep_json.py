from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sternpost_operator.resources import deep_json
from sternpost_operator.resources.deep_json import MAX_DEPTH, loads, too_deep
from sternpost_operator.resources.manifest import check_wire

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text('ab"\\[]{}', max_size=4), children, max_size=3)
    ),
    max_leaves=20,
)


def nested(levels: int, inside: str = "1") -> str:
    return (
        "".join(('{"a]":', '["}", ')[level % 2] for level in range(levels))
        + inside
        + "".join("}]"[level % 2] for level in reversed(range(levels)))
    )


@pytest.mark.parametrize("levels", [100, 300, 900, 1000, 9999, 100_001])
def test_what_python_gives_up_on_is_cut_down(levels: int) -> None:
    value = loads(f'{{"before": [1], "deep": {nested(levels)}, "after": {{"b": "}}"}}, "more": {nested(levels)}}}')
    assert (value["before"], value["after"]) == ([1], {"b": "}"})
    assert too_deep(value) is not None
    assert not deep_json._is_deeper(value, 2 * MAX_DEPTH)
    json.dumps(value)


@given(JSON)
def test_what_is_not_too_deep_is_not_touched(value: Any) -> None:
    text = json.dumps(value)
    assert loads(text) == value
    assert json.loads(deep_json._cut(text)) == value
    assert too_deep(value) is None


@pytest.mark.parametrize("text", ["", "{", nested(5000)[:-1], nested(5000)[:8000], "[" * 50_000, '{"a": tru}'])
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        loads(text)


@pytest.mark.parametrize("levels", [MAX_DEPTH, MAX_DEPTH + 1, MAX_DEPTH + 2, 10 * MAX_DEPTH])
def test_the_bound(levels: int) -> None:
    found = too_deep(json.loads("[" * levels + "]" * levels))
    assert (found is not None) == (levels > MAX_DEPTH + 1)
    assert found is None or len(found) == MAX_DEPTH


def test_a_job_that_is_too_deep_is_refused_with_its_field() -> None:
    wire = {"metadata": {"name": "x"}, "spec": {"workers": 1, "template": loads(f'{{"novel": {nested(2000)}}}')}}
    found = {message: location for location, message in check_wire(wire)}
    assert found[f"nested more than {MAX_DEPTH} levels deep"][:3] == ("spec", "template", "novel")
