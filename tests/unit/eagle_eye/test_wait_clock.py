"""Waits of several threads."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_eagle_eye.reporter.wait_clock import WaitClock


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.sampled_from(["enter", "leave"]), st.floats(0, 10)), max_size=40))
def test_overlapping_waits_count_once(events):
    now, waiting, depth, expected = 0.0, [False], 0, 0.0
    clock = WaitClock(lambda value: waiting.__setitem__(0, value), lambda: now)
    for event, pause in events:
        getattr(clock, event)()
        depth = depth + 1 if event == "enter" else max(0, depth - 1)
        assert waiting[0] == (depth > 0)
        now += pause
        expected += pause if depth else 0
        assert abs(clock.total() - expected) < 1e-6
