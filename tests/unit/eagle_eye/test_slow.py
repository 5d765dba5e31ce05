"""The slow detector, through the judge, on virtual time."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_eagle_eye.config import EagleEyePolicy
from sternpost_eagle_eye.features import nan_median


@pytest.mark.parametrize(("factor", "workers"), [(2.0, 4), (3.0, 4), (2.0, 8), (1.8, 3), (3.0, 64)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_names_the_slow_worker_within_seconds(simulate, factor, workers, seed):
    job = simulate(workers, seed=seed, noise=0.08).train(40)
    slow = workers // 2
    job.factor[slow] = factor
    started = job.now
    (finding,) = job.run(40, until_found=True)
    assert job.now - started <= 25
    assert (finding.kind, finding.worker, finding.evict) == ("slow", slow, False)
    assert f"of {workers - 1} peers" in finding.evidence
    assert "may recover" in finding.evidence
    job.run(120)
    (_, evicted) = next(found for found in job.findings if found[1].evict)
    assert (evicted.worker, evicted.confidence >= 0.9) == (slow, True)


@pytest.mark.parametrize(("seconds", "named"), [(12, 10), (40, 25), (120, 25)])
@pytest.mark.parametrize("seed", [1, 2])
def test_seconds_say_how_long_a_slow_node_is_suffered(simulate, seconds, named, seed):
    job = simulate(4, seed=seed, noise=0.08, policy={"slow": {"seconds": seconds, "minSteps": 5}}).train(60)
    job.factor[2] = 3.0
    started = job.now
    job.run(seconds + 30)
    found = [(at - started, finding) for at, finding in job.findings if finding.worker == 2]
    assert min(at for at, _ in found) <= named
    assert seconds - 3 <= min(at for at, finding in found if finding.evict) <= seconds + 3


def test_thresholds_change_while_the_job_runs(simulate):
    job = simulate(4, seed=1).train(60)
    job.factor[2] = 3.0
    job.run(30)
    assert job.findings
    assert not any(finding.evict for _, finding in job.findings)
    job.judge.adopt(EagleEyePolicy.model_validate({"slow": {"seconds": 20}}))
    (finding,) = job.run(2)
    assert (finding.worker, finding.evict) == (2, True), "what was learnt is kept"
    job.judge.adopt(EagleEyePolicy(detect=False))
    assert job.run(5) == []


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_third_slower_is_named_within_a_minute(simulate, seed):
    job = simulate(8, seed=seed, noise=0.05).train(60)
    job.factor[5] = 1.35
    started = job.now
    (finding,) = job.run(80, until_found=True)
    assert (finding.worker, finding.evict) == (5, False)
    assert job.now - started <= 60


def test_found_on_machines_with_heavy_noise(simulate):
    # Two processors, four ranks: bursts of up to twice the compute time for seconds.
    job = simulate(4, seed=5, noise=0.15, bursts=0.1).train(60)
    job.factor[1] = 3.0
    started = job.now
    (finding,) = job.run(60, until_found=True)
    assert finding.worker == 1
    assert job.now - started <= 30
    assert job.run(120)[0].evict


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("workers", [2, 4, 8])
def test_an_hour_of_noise_evicts_nobody(simulate, workers, seed):
    job = simulate(workers, seed=seed, noise=0.15, bursts=0.08, base=0.15)
    job.phase = "train"
    job.run(3600)
    assert [finding for _, finding in job.findings if finding.evict or finding.worker is not None] == []


def test_a_straggler_that_recovers_is_left_alone(simulate):
    job = simulate(4, seed=1).train(40)
    for _ in range(10):
        job.factor[2] = 3.0
        assert job.run(12) == []
        job.factor[2] = 1.0
        assert job.run(10) == []


def test_when_all_get_slower_nobody_is_blamed(simulate):
    job = simulate(4, seed=1).train(40)
    job.factor = [2.0] * 4
    (finding,) = job.run(200, until_found=True)
    assert (finding.worker, finding.evict) == (None, False)
    assert finding.confidence <= 0.5
    job.run(300)
    assert not any(found.evict for _, found in job.findings)


def test_slow_from_the_start_is_only_suspected_unless_extreme(simulate):
    job = simulate(4, seed=1)
    job.phase, job.factor[3] = "train", 1.8
    (finding,) = job.run(60, until_found=True)
    assert (finding.worker, finding.evict) == (3, False)
    assert "never seen faster" in finding.evidence
    job = simulate(4, seed=1)
    job.phase, job.factor[3] = "train", 3.0
    (finding,) = job.run(180)
    assert (finding.worker, finding.evict) == (3, True)


def test_two_workers_need_the_slow_ones_own_past(simulate):
    job = simulate(2, seed=1).train(60)
    job.factor[1] = 3.0
    (finding,) = job.run(160)
    assert (finding.worker, finding.evict) == (1, True)
    job = simulate(2, seed=1)
    job.phase, job.factor[1] = "train", 3.0  # perhaps another role: nothing says that it was ever faster
    (finding,) = job.run(60, until_found=True)
    assert (finding.worker, finding.evict) == (1, False)


def test_a_single_worker_is_never_evicted_for_slowness(simulate):
    job = simulate(1, seed=1).train(60)
    job.factor[0] = 4.0
    job.run(120)
    assert job.findings
    assert not any(found.evict for _, found in job.findings)


def test_what_costs_the_job_little_does_not_matter(simulate):
    job = simulate(4, seed=1, base=0.002, noise=0.02).train(40)
    job.factor[2] = 2.5
    assert job.run(60) == []


def test_slow_steps_take_min_steps(simulate):
    job = simulate(4, seed=1, base=6.0, noise=0.02).train(150)
    job.factor[2] = 2.0
    started = job.now
    (finding,) = job.run(400, until_found=True)
    assert finding.worker == 2
    assert job.now - started > 3 * 12


def test_counters_that_go_back_say_nothing(simulate):
    job = simulate(4, seed=1).train(40)
    for _ in range(30):
        for sums in job.sums:
            sums[:] = [0.0, 0.0]
        assert job.run(2) == []


def test_the_first_steps_do_not_count(simulate):
    job = simulate(4, seed=1)
    job.phase, job.factor[1] = "train", 10.0
    job.run(3)
    job.factor[1] = 1.0
    assert job.run(60) == []


def test_evaluation_neither_ends_nor_feeds_a_streak(simulate):
    job = simulate(4, seed=1).train(40)
    job.factor[1] = 3.0
    assert job.run(10) == []
    job.phase = "eval"
    assert job.run(60) == []
    job.phase = "train"
    (finding,) = job.run(30, until_found=True)
    assert finding.worker == 1


@settings(deadline=None, max_examples=100)
@given(st.lists(st.lists(st.floats(-9, 9) | st.just(math.nan), min_size=5, max_size=5), min_size=1, max_size=6))
def test_median_of_what_is_known(rows):
    found = nan_median(np.array(rows), axis=1)
    for row, value in zip(rows, found, strict=True):
        known = [each for each in row if not math.isnan(each)]
        assert value == pytest.approx(statistics.median(known)) if known else math.isnan(value)
