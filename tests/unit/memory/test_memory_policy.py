from __future__ import annotations

from sternpost_memory.consolidation.policy import Policy, due
from sternpost_memory.store.base import Buffer

POLICY = Policy(count=10, size=1000, age=5.0)


def buffer(space: str = "a", count: int = 1, size: int = 1, oldest_at: float = 100.0) -> Buffer:
    return Buffer(space=space, count=count, size=size, oldest_at=oldest_at)


def test_nothing_to_do() -> None:
    plan = due([], {"a"}, POLICY, 100.0)
    assert plan.spaces == ()
    assert plan.wait is None


def test_count_size_age_and_request_each_suffice() -> None:
    assert due([buffer(count=10)], (), POLICY, 100.0).spaces == ("a",)
    assert due([buffer(size=1000)], (), POLICY, 100.0).spaces == ("a",)
    assert due([buffer()], (), POLICY, 105.0).spaces == ("a",)
    assert due([buffer()], {"a"}, POLICY, 100.0).spaces == ("a",)
    assert due([buffer()], {"b"}, POLICY, 100.0).spaces == ()


def test_waits_for_the_next_that_gets_old() -> None:
    plan = due([buffer("a", oldest_at=99.0), buffer("b", oldest_at=97.0)], (), POLICY, 100.0)
    assert (plan.spaces, plan.wait) == ((), 2.0)


def test_the_oldest_comes_first() -> None:
    plan = due([buffer("a", oldest_at=9.0), buffer("b", oldest_at=7.0)], (), POLICY, 100.0)
    assert plan.spaces == ("b", "a")


def test_a_clock_that_was_set_back_keeps_nothing_waiting() -> None:
    assert due([buffer(oldest_at=10_000.0)], (), POLICY, 100.0).spaces == ("a",)
