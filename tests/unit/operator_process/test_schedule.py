from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sternpost_operator.operator_process.schedule import Schedule

SPACING = 1.0


def test_a_key_is_taken_once_however_often_it_was_woken() -> None:
    schedule: Schedule[str] = Schedule(SPACING)
    for now in (0.0, 0.1, 0.2):
        schedule.wake("a", now)
    assert schedule.take(0.3) == ("a", 0.3)
    assert schedule.take(9) is None


def test_what_happens_during_the_work_is_worked_on_afterwards() -> None:
    schedule: Schedule[str] = Schedule(SPACING)
    schedule.wake("a", 0)
    schedule.take(0)
    schedule.wake("a", 0.1)
    assert schedule.take(5) is None, "it is in work"
    schedule.done("a", 0.2, None)
    assert schedule.next_due() == SPACING, "not before the spacing"
    assert schedule.take(0.9) is None
    assert schedule.take(1.0) == ("a", 0.0)


def test_a_timer_is_overtaken_by_news() -> None:
    schedule: Schedule[str] = Schedule(SPACING)
    schedule.wake("a", 0)
    schedule.take(0)
    schedule.done("a", 0, 60)
    assert schedule.next_due() == 60
    schedule.wake("a", 10)
    assert schedule.take(10) == ("a", 0.0)
    schedule.done("a", 10, None)
    assert schedule.next_due() is None, "the timer went with it"


def test_the_longest_due_comes_first() -> None:
    schedule: Schedule[str] = Schedule(SPACING)
    for name, now in (("a", 0.0), ("b", 1.0), ("c", 0.5)):
        schedule.wake(name, now)
    assert schedule.depth(0.7) == 2
    assert [schedule.take(2), schedule.take(2), schedule.take(2)] == [("a", 2.0), ("c", 1.5), ("b", 1.0)]
    assert schedule.depth(2) == 0


STEPS = st.lists(
    st.tuples(st.sampled_from(["wake", "take", "done", "wait"]), st.sampled_from("abc"), st.floats(0, 3)), max_size=60
)


@given(STEPS)
def test_nothing_is_lost_and_nothing_is_in_work_twice(steps: list[tuple[str, str, float]]) -> None:
    schedule: Schedule[str] = Schedule(SPACING)
    now = 0.0
    called: set[str] = set()  # a model: what must be taken some time
    active: dict[str, float] = {}
    taken_at: dict[str, float] = {}
    for step, key, seconds in steps:
        match step:
            case "wake":
                schedule.wake(key, now)
                called.add(key)
            case "take":
                found = schedule.take(now)
                if found is not None:
                    name, waited = found
                    assert name not in active
                    assert name in called
                    assert waited >= 0
                    assert now - taken_at.get(name, -SPACING) >= SPACING - 1e-9
                    called.discard(name)
                    active[name] = taken_at[name] = now
            case "done" if key in active:
                del active[key]
                again = None if seconds > 2 else seconds
                schedule.done(key, now, again)
                if again is not None:
                    called.add(key)
            case "wait":
                now += seconds
    for key in list(active):
        schedule.done(key, now, None)
    now += 10
    left = set()
    while (found := schedule.take(now)) is not None:
        left.add(found[0])
    assert left == called
