"""The worker-gone detector, through the judge, on virtual time."""

from __future__ import annotations

from sternpost_eagle_eye.vector import PageState


def test_confidence_grows_and_eviction_comes_late(simulate):
    job = simulate(4, seed=1).train(20).hang(2)
    job.silent = {2}
    started = job.now
    (first,) = job.run(20, until_found=True)
    assert job.now - started <= 3
    assert (first.kind, first.worker, first.evict) == ("worker-gone", 2, False)
    (later,) = job.run(20)
    assert not later.evict
    assert later.confidence > first.confidence
    (last,) = job.run(20)
    assert last.evict
    assert "node-2" in last.evidence


def test_silence_while_the_others_get_on_evicts_nobody(simulate):
    job = simulate(4, seed=1).train(20)
    job.silent = {2}
    assert job.run(28) == []
    (finding,) = job.run(300)
    assert (finding.worker, finding.evict) == (2, False)
    assert finding.confidence <= 0.5


def test_a_trainer_that_is_gone_while_its_machine_reports(simulate):
    job = simulate(4, seed=1).train(20).hang(2)
    job.pages[2] = PageState.NONE
    (finding,) = job.run(4, until_found=True)
    assert (finding.kind, finding.worker, finding.evict) == ("worker-gone", 2, False)
    assert not any(found.evict for _, found in job.findings)


def test_a_missing_worker_explains_a_hang(simulate):
    job = simulate(4, seed=1, policy={"hang": {"minSeconds": 10}}).train(20).hang(2)
    job.silent = {2}
    (finding,) = job.run(60)
    assert finding.kind == "worker-gone"


def test_more_than_half_silent_blames_nobody(simulate):
    job = simulate(4, seed=1).train(20)
    job.silent = {1, 2, 3}
    (finding,) = job.run(120)
    assert (finding.worker, finding.evict) == (None, False)
    assert finding.confidence <= 0.5


def test_nobody_reports_nobody_is_blamed(simulate):
    job = simulate(4, seed=1).train(20)
    job.silent = {0, 1, 2, 3}
    assert job.run(60) == []


def test_one_never_heard_of_has_more_time(simulate):
    job = simulate(4, seed=1)
    job.silent = {3}
    assert job.run(30) == []
    (finding,) = job.run(5)
    assert finding.worker == 3


def test_one_that_succeeded_may_go(simulate):
    job = simulate(4, seed=1).train(20)
    job.launcher[3] = "succeeded"
    job.run(1)
    job.silent = {3}
    assert job.run(60) == []


def test_the_judges_own_pause_is_nobodys_silence(simulate):
    job = simulate(4, seed=1).train(20)
    job.now += 600
    assert job.judge.tick(job.now) == []
