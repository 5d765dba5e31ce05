from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_checkpoint.lineage import Generation, Run, eligible, newest, superseded_by


def run(number: int, restored: int, attempt: int | None = None, uid: str = "a") -> Run:
    return Run(number, restored, uid, attempt or number, f"{attempt or number}-x")


def test_what_lies_behind_the_restored_step_of_a_later_run_is_abandoned() -> None:
    runs = [run(1, 0), run(2, 90)]
    assert eligible(Generation(90, 1), runs)
    assert not eligible(Generation(100, 1), runs)
    assert eligible(Generation(100, 2), runs)
    assert newest([Generation(90, 1), Generation(100, 1)], runs) == Generation(90, 1)


def test_a_fresh_start_abandons_everything() -> None:
    assert newest([Generation(90, 1)], [run(1, 0), run(2, 0)]) is None


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 100), st.lists(st.integers(1, 10), max_size=5)), min_size=1, max_size=8))
def test_eligible_is_exactly_the_line_of_a_simple_model(history: list[tuple[int, list[int]]]) -> None:
    """Each run restores some point of the current line and saves a few times; the model just cuts and appends."""
    line: list[Generation] = []
    saved: list[Generation] = []
    runs: list[Run] = []
    for number, (choice, increments) in enumerate(history, start=1):
        choices = [0, *(generation.step for generation in line)]
        restored = choices[choice % len(choices)]
        line = [generation for generation in line if generation.step <= restored]
        runs.append(run(number, restored))
        step = restored
        for increment in increments:
            step += increment
            line.append(Generation(step, number))
            saved.append(Generation(step, number))
    assert {generation for generation in saved if eligible(generation, runs)} == set(line)
    assert newest(saved, runs) == max(line, default=None)


def test_only_a_later_attempt_of_the_same_job_supersedes() -> None:
    runs = [run(1, 0, attempt=7, uid="old"), run(2, 0, attempt=2, uid="new")]
    assert superseded_by(runs, "new", 2) is None
    later = superseded_by(runs, "new", 1)
    assert later is not None
    assert later.attempt_number == 2
