from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sternpost_operator.operator_process.back_off import BackOff


def test_pauses_double_up_to_the_limit_and_begin_anew() -> None:
    back_off: BackOff[str] = BackOff(1, 10, dice=lambda: 1.0)
    assert [back_off.failed("a") for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    assert back_off.failed("b") == 1
    back_off.succeeded("a")
    assert back_off.failed("a") == 1


@given(st.integers(0, 200), st.floats(0, 1, exclude_max=True))
def test_a_pause_is_never_longer_than_the_limit_nor_shorter_than_half(failures: int, roll: float) -> None:
    back_off: BackOff[int] = BackOff(0.5, 30, dice=lambda: roll)
    pauses = [back_off.failed(0) for _ in range(failures + 1)]
    assert 0.25 <= pauses[-1] <= 30
