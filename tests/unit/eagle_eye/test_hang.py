"""The hang detector, through the judge, on virtual time."""

from __future__ import annotations

import pytest

from sternpost_eagle_eye.vector import PageState

QUICK = {"hang": {"minSeconds": 10, "initSeconds": 60, "factor": 5}}


def test_the_rank_outside_the_collective_is_to_blame(simulate):
    job = simulate(4, seed=1, policy=QUICK).train(30).hang(2)
    started = job.now
    (finding,) = job.run(40, until_found=True)
    assert 10 <= job.now - started <= 13
    assert (finding.kind, finding.worker, finding.evict) == ("hang", 2, False)
    assert finding.confidence >= 0.9
    assert "3 of 4 workers wait in a collective (0, 1, 3)" in finding.evidence
    assert "node-2" in finding.evidence


def test_a_stopped_rank_whose_page_is_silent_is_to_blame(simulate):
    job = simulate(4, seed=1, policy=QUICK).train(30).hang(1)
    job.pages[1], job.stopped[1] = PageState.TIMEOUT, True
    (finding,) = job.run(40, until_found=True)
    assert (finding.worker, finding.evict) == (1, False)
    assert finding.confidence >= 0.95
    assert "have a stopped process (1)" in finding.evidence


def test_a_silent_page_is_enough_where_processes_are_not_seen(simulate):
    job = simulate(4, seed=1, policy=QUICK).train(30).hang(3)
    job.sees_processes, job.pages[3] = False, PageState.TIMEOUT
    (finding,) = job.run(40, until_found=True)
    assert finding.worker == 3


def test_without_a_minority_nobody_is_blamed(simulate):
    job = simulate(4, seed=1, policy=QUICK).train(30).hang(None)
    (finding,) = job.run(40, until_found=True)
    assert finding.worker is None
    assert not finding.evict


def test_two_suspects_are_no_suspect(simulate):
    job = simulate(8, seed=1, policy=QUICK).train(30).hang(2)
    job.in_collective[5] = False
    (finding,) = job.run(40, until_found=True)
    assert finding.worker is None
    assert "(2, 5)" in finding.evidence


def test_fewer_steps_are_a_sign_where_waits_are_not_measured(simulate):
    job = simulate(4, seed=1, policy=QUICK).train(30).hang(2, in_collective=False)
    job.behind[2] = 1
    job.in_collective = [None] * 4
    (finding,) = job.run(60, until_found=True)
    assert finding.worker == 2


def test_busy_without_any_other_sign_waits_three_times_as_long(simulate):
    job = simulate(4, seed=1, policy=QUICK).train(30).hang(None, in_collective=False)
    started = job.now
    found: list = []
    while not found and job.now - started < 60:
        job.cpu = [used + 1 for used in job.cpu]
        found = job.run(1)
    assert job.now - started >= 30
    assert found[0].worker is None
    assert found[0].confidence <= 0.6


@pytest.mark.parametrize("phase", ["eval", "checkpoint"])
def test_a_first_evaluation_may_take_long_and_a_later_one_as_long_as_before(simulate, phase):
    job = simulate(4, seed=1, policy=QUICK).train(30)
    job.in_collective = [True] * 4
    job.phase = phase
    assert job.run(55) == []
    job.phase = "train"
    job.in_collective = [False] * 4
    assert job.run(20) == []
    job.phase = phase
    job.in_collective = [True, True, True, False]
    assert job.run(200) == []
    (finding,) = job.run(120, until_found=True)
    assert finding.worker == 3


def test_one_evaluating_rank_excuses_those_that_wait_for_it(simulate):
    job = simulate(4, seed=1, policy=QUICK).train(30).hang(0)
    vector = job.vector

    def evaluating(worker):
        made = vector(worker)
        if worker:
            return made
        return made.model_copy(update={"ranks": (made.ranks[0].model_copy(update={"phase": "eval"}),)})

    job.vector = evaluating
    assert job.run(50) == []


def test_the_start_has_a_limit_of_its_own(simulate):
    job = simulate(4, seed=1, policy=QUICK)
    assert job.run(59) == []
    job.in_collective = [True, True, True, False]
    (finding,) = job.run(10, until_found=True)
    assert finding.worker == 3


def test_long_steps_are_no_hang_before_the_second_one_was_seen(simulate):
    job = simulate(4, seed=1, base=50.0, noise=0.01, policy=QUICK)
    job.phase = "train"
    job.in_collective = [True, True, True, False]
    assert job.run(600) == []


def test_a_trainer_without_steps_never_hangs(simulate):
    job = simulate(4, seed=1, policy=QUICK)
    job.reports = False
    job.run(500)
    assert job.findings == []


def test_a_failed_worker_is_not_a_hang(simulate):
    job = simulate(4, seed=1, policy=QUICK).train(30).hang(1)
    job.launcher[1] = "failed"
    assert job.run(100) == []


def test_the_judges_own_pause_is_nobodys_hang(simulate):
    job = simulate(4, seed=1, policy=QUICK).train(30)
    job.now += 300
    assert job.judge.tick(job.now) == []
    assert job.run(30) == []


def test_a_hang_that_resolves_is_over(simulate):
    job = simulate(4, seed=1, policy=QUICK).train(30).hang(1)
    assert job.run(20)
    job.standing, job.in_collective = False, [False] * 4
    assert job.run(20) == []
