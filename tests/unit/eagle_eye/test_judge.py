"""The judge: fusion, budget, circuit breaker, and what does not count."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sternpost_eagle_eye.attempt import Attempt
from sternpost_eagle_eye.config import EagleEyePolicy
from sternpost_eagle_eye.detect.base import Finding
from sternpost_eagle_eye.judge import Judge
from sternpost_eagle_eye.report import AnomalyReports
from sternpost_eagle_eye.sidecar.own_metrics import OwnMetrics


def test_vectors_that_do_not_count_are_refused_with_a_reason(simulate):
    job = simulate(2, seed=1)
    vector = job.vector(1)
    take = job.judge.take
    assert "not the current one" in take(vector.model_copy(update={"attempt": "2-old"}), job.now, job.wall)
    assert "has uid stranger" in take(vector.model_copy(update={"pod_uid": "stranger"}), job.now, job.wall)
    assert take(vector, job.now, job.wall) is None
    assert "came after" in take(vector, job.now, job.wall)
    assert take(vector.model_copy(update={"boot": "another", "sequence": 0}), job.now, job.wall) is None


def test_detection_can_be_off(simulate):
    job = simulate(4, seed=1, policy={"detect": False}).train(30)
    job.silent, job.factor[1] = {2}, 5.0
    assert job.run(120) == []


class Scripted:
    def __init__(self):
        self.found: list[Finding] = []

    def evaluate(self, job, now):
        return self.found


@pytest.fixture
def judged(make_attempt):
    judge = Judge(Attempt.model_validate(make_attempt(16)), EagleEyePolicy(), 0.0)
    detector = Scripted()
    judge._detectors = (detector,)
    return judge, detector


def slow(worker, confidence=0.95, evict=True):
    return Finding("slow", worker, confidence, evict, "evidence")


def test_the_budget_of_an_attempt_goes_to_the_surest(judged):
    judge, detector = judged
    detector.found = [slow(1, 0.91), slow(2, 0.97), slow(3, 0.95)]
    found = {f.worker: f for f in judge.tick(1.0)}
    assert {worker for worker, f in found.items() if f.evict} == {2, 3}
    assert "budget of 2" in found[1].evidence
    detector.found = [slow(1, 0.99)]
    assert not judge.tick(2.0)[0].evict


def test_more_than_half_look_bad_and_nobody_is_evicted(judged):
    judge, detector = judged
    detector.found = [slow(worker) for worker in range(9)]
    found = judge.tick(1.0)
    assert len(found) == 9
    assert all(not f.evict and f.confidence <= 0.5 for f in found)


def test_a_standing_finding_does_not_waver(judged):
    judge, detector = judged
    detector.found = [slow(1, 0.95)]
    assert judge.tick(1.0)[0].evict
    detector.found = [slow(1, 0.6, evict=False)]
    assert judge.tick(2.0)[0].evict
    assert judge.tick(3.0)[0].confidence == 0.95
    detector.found = []
    for now in range(4, 30):
        assert judge.tick(float(now)) == []
    detector.found = [slow(1, 0.6, evict=False)]
    assert not judge.tick(30.0)[0].evict


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(["worker-gone", "hang", "slow"]), st.none() | st.integers(0, 15), st.floats(0, 1)),
        max_size=20,
    ),
    st.lists(st.floats(-5, 30), min_size=1, max_size=5),
)
def test_evictions_never_exceed_the_budget(make_attempt, found, steps):
    judge = Judge(Attempt.model_validate(make_attempt(16)), EagleEyePolicy(), 0.0)
    detector = Scripted()
    judge._detectors = (detector,)
    detector.found = [Finding(kind, worker, sure, worker is not None, "e") for kind, worker, sure in found]
    evicted, now = set(), 0.0
    for step in steps:
        now += step  # also backwards
        evicted |= {f.worker for f in judge.tick(now) if f.evict}
        assert 0 <= judge.clock(now) <= 4 * 30
    assert len(evicted) <= 2


def test_anomalies_are_what_the_operator_reads(make_attempt):
    anomaly_model = pytest.importorskip("sternpost_operator.resources.anomaly").Anomaly
    reports = AnomalyReports(Attempt.model_validate(make_attempt(4)), "default")
    findings = [slow(2), Finding("hang", None, 0.75, False, "é" * 5000)]
    due = reports.due(findings, 1_764_000_000.5)
    assert [anomaly.name for anomaly in due] == ["3-9f2c1a00-slow-2", "3-9f2c1a00-hang-job"]
    read = [anomaly_model.model_validate(anomaly.manifest) for anomaly in due]
    assert (read[0].spec.worker, read[0].spec.node, read[0].spec.pod, read[0].spec.evict) == (
        2,
        "node-2",
        "gpt-2",
        True,
    )
    assert (read[1].spec.worker, read[1].spec.node) == (None, None)
    assert reports.due(findings, 1_764_000_004.0) == []
    assert reports.due([slow(2, evict=False)], 1_764_000_004.0)  # a changed verdict at once
    (again,) = reports.due([findings[1]], 1_764_000_006.0)
    spec = anomaly_model.model_validate(again.manifest).spec
    assert (spec.last_seen - spec.first_seen).total_seconds() == 5.5
    reports.failed(again)
    assert reports.due([findings[1]], 1_764_000_006.5)


def test_a_finding_is_new_until_it_is_written(make_attempt):
    reports = AnomalyReports(Attempt.model_validate(make_attempt(4)), "default")
    (first,) = reports.due([slow(2)], 1_764_000_000.0)
    reports.failed(first)
    (again,) = reports.due([slow(2)], 1_764_000_001.0)
    assert (first.new, again.new) == (True, True)
    (later,) = reports.due([slow(2)], 1_764_000_006.0)
    assert not later.new
    reports.failed(later)
    assert [anomaly.new for anomaly in reports.due([slow(2)], 1_764_000_007.0)] == [False]


def test_what_stands_for_long_is_repeated_less_often(make_attempt):
    reports = AnomalyReports(Attempt.model_validate(make_attempt(4)), "default")
    written = [second for second in range(300) if reports.due([slow(2)], 1_764_000_000.0 + second)]
    assert written == [*range(0, 60, 5), *range(85, 300, 30)]


def test_an_attempts_thresholds_count_in_place_of_the_pods(tmp_path, make_attempt, make_court):
    court = make_court(tmp_path, OwnMetrics(), lambda: 0.0)
    first = make_attempt(4)
    court.convene(Attempt.model_validate(first))
    session = court.session
    assert court.policy == EagleEyePolicy()
    changed = {**first, "spec": {**first["spec"], "eagleEye": {"intervalSeconds": 2, "slow": {"seconds": 40}}}}
    court.convene(Attempt.model_validate(changed))
    assert court.session is session, "what was learnt is kept"
    assert (court.policy.interval_seconds, court.policy.slow.seconds) == (2, 40)
