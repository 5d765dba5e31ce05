"""Pages from confused trainers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_eagle_eye.collect.page import MAX_LINES, parse_page
from sternpost_eagle_eye.collect.trainer import rank_vector

GOOD = """# HELP sternpost_step Last
# TYPE sternpost_step gauge
sternpost_step{rank="0"} 12.0
sternpost_loss{rank="0"} NaN
python_info{version="3"} 1.0
sternpost_phase{phase="train",rank="0"} 1.0
sternpost_phase{phase="init",rank="0"} 0.0
"""


def test_only_ours_is_read():
    page = parse_page(GOOD)
    assert len(page.samples) == 4
    assert page.count("sternpost_step") == 12
    assert math.isnan(page.value("sternpost_loss"))
    assert page.finite("sternpost_loss") is None
    assert page.chosen("sternpost_phase", "phase") == "train"


def test_a_bad_line_costs_only_itself():
    page = parse_page(GOOD + 'sternpost_step{rank="0" 13\nsternpost_grad_norm{rank="0"} twelve\nsternpost_\n')
    assert page.dropped == 3
    assert page.count("sternpost_step") == 12


def test_many_lines_are_cut():
    page = parse_page("".join(f'sternpost_x{{rank="0",i="{i}"}} 1\n' for i in range(MAX_LINES + 500)))
    assert (len(page.samples), page.dropped) == (MAX_LINES, 500)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=80).map(lambda text: "sternpost_" + text),
            st.tuples(
                st.sampled_from(["step", "loss", "step_seconds_sum", "step_seconds_count", "restored_step", "phase"]),
                st.one_of(st.floats(), st.integers(), st.text(max_size=10)),
            ).map(lambda pair: f'sternpost_{pair[0]}{{rank="0"}} {pair[1]}'),
        ),
        max_size=20,
    )
)
def test_no_page_breaks_the_collector(lines):
    vector, dropped = rank_vector("\n".join(lines), 0, "1-a")
    assert vector.rank == 0
    assert 0 <= dropped <= sum(line.count("\n") + 1 for line in lines)


@pytest.mark.parametrize("value", ["-1", "NaN", "+Inf", "1.5", "1e300"])
def test_a_step_that_is_no_count_is_no_step(value):
    vector, _ = rank_vector(f'sternpost_step{{rank="0"}} {value}\n', 0, "1-a")
    assert vector.step is None


def test_pages_of_others_are_known():
    assert rank_vector(GOOD, 1, "1-a")[0].page == "other"
    old = GOOD + 'sternpost_attempt_info{attempt="1-a",rank="0"} 1\n'
    assert rank_vector(old, 0, "2-b")[0].page == "other"
    assert rank_vector(old, 0, "1-a")[0].page == "ok"
    assert rank_vector("<html>", 0, "1-a")[0].page == "garbage"
