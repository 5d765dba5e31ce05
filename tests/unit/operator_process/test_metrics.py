from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from sternpost_operator.metrics.changes import Changes, changes
from sternpost_operator.metrics.jobs import ANOMALY_SECONDS, JobMetrics, JobSample
from sternpost_operator.metrics.operator_metrics import OperatorMetrics
from sternpost_operator.recovery.observed import AnomalyView
from sternpost_operator.resources.anomaly import AnomalyKind, AnomalySpec
from sternpost_operator.resources.progress import CheckpointReport, ProgressReport
from sternpost_operator.resources.training_job_status import (
    MAX_ATTEMPTS,
    BudgetsUsed,
    CheckpointStatus,
    CurrentAttempt,
    ExcludedNode,
    Phase,
    Progress,
    Recovery,
    TrainingJobStatus,
    Workers,
)

KEY = {"namespace": "team", "job_name": "gpt"}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_a_recovery_counts_once_and_each_stage_when_it_is_known(record) -> None:
    before = TrainingJobStatus()
    decided = TrainingJobStatus(attempts=[record(1, detect=3.0, decide=1.0)])
    assert changes(before, decided) == Changes((("NodeLost", "pods"),), (("detect", 3.0), ("decide", 1.0)))
    done = TrainingJobStatus(attempts=[record(1, detect=3.0, decide=1.0, first_step=2.0)], lost_steps=7)
    assert changes(decided, done) == Changes((), (("first_step", 2.0),), 7)
    assert changes(done, done) == Changes()


def test_a_stop_on_request_is_no_recovery(record) -> None:
    assert changes(TrainingJobStatus(), TrainingJobStatus(attempts=[record(1, rung=None)])) == Changes()


def test_records_that_fell_out_of_the_status_are_not_counted_again(record) -> None:
    before = TrainingJobStatus(attempts=[record(number) for number in range(2, 2 + MAX_ATTEMPTS)])
    after = TrainingJobStatus(attempts=[record(number) for number in range(3, 3 + MAX_ATTEMPTS)])
    assert changes(before, after).recoveries == (("NodeLost", "pods"),)
    assert changes(after, before).recoveries == (), "an older status tells nothing new"


def test_counters_and_histograms(registry, record) -> None:
    metrics = OperatorMetrics(registry)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"sternpost_operator_{name}", labels)

    assert value("recoveries_total", cause="NodeLost", rung="pods") == 0, "there before anything happens"
    metrics.status_changed(TrainingJobStatus(), TrainingJobStatus(attempts=[record(1, detect=3.0)], lost_steps=5))
    assert value("recoveries_total", cause="NodeLost", rung="pods") == 1
    assert value("recovery_stage_seconds_count", stage="detect") == 1
    assert value("lost_steps_total") == 5
    metrics.request_done("create", "pods", "201", 0.1)
    metrics.request_done("create", "pods", "409", 0.1)
    metrics.request_done("update", "trainingjobs/status", "409", 0.1)
    metrics.request_done("get", "pods", "503", 0.1)
    metrics.request_failed("get", "pods", "timeout", 10)
    assert value("api_requests_total", verb="create", resource="pods", code="201") == 1
    assert value("api_errors_total", verb="create", resource="pods", reason="conflict") is None, "it is there: well"
    assert value("api_errors_total", verb="update", resource="trainingjobs/status", reason="conflict") == 1
    assert value("api_errors_total", verb="get", resource="pods", reason="server") == 1
    assert value("api_errors_total", verb="get", resource="pods", reason="timeout") == 1
    assert value("api_request_seconds_count", verb="get", resource="pods") == 2
    metrics.keeps_cordoned({"node-1", "node-2"})
    metrics.keeps_cordoned({"node-2"})
    assert value("nodes_cordoned") == 1
    assert value("node_cordoned", node="node-1") is None
    assert value("node_cordoned", node="node-2") == 1


def test_the_gauges_of_a_job(registry, job, at) -> None:
    metrics = JobMetrics(registry, clock=lambda: at(100).timestamp())
    status = TrainingJobStatus(
        phase=Phase.RECOVERING,
        attempt=CurrentAttempt(number=3, id="3-c"),
        workers=Workers(desired=4, ready=3, running=2),
        budgets=BudgetsUsed(ranks=1, pods=5, jobs=0),
        restarts=2,
        lost_steps=9,
        recovery=Recovery(detected_at=at(40)),
        progress=Progress(step=100, loss=1.25, updated_at=at(30)),
        checkpoint=CheckpointStatus(last_step=90, committed_at=at(20)),
        excluded_nodes=[ExcludedNode(node="node-1", since=at(0), until=at(1000))],
    )
    metrics.show("team", "gpt", JobSample(status, job().spec))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"sternpost_{name}", labels)

    assert value("job_phase", **KEY, phase="Recovering") == 1
    assert [value("job_workers", **KEY, state=state) for state in ("desired", "ready", "running")] == [4, 3, 2]
    assert [value("job_budget_used_ratio", **KEY, rung=rung) for rung in ("ranks", "pods", "jobs")] == [0.1, 0.5, 0]
    assert value("job_recovery_started_timestamp_seconds", **KEY) == at(40).timestamp()
    assert (value("job_step", **KEY), value("job_loss", **KEY)) == (100, 1.25)
    assert value("job_checkpoint_step", **KEY) == 90
    assert (value("job_restarts", **KEY), value("job_lost_steps", **KEY), value("job_attempt", **KEY)) == (2, 9, 3)
    assert value("operator_jobs", phase="Recovering") == 1
    assert value("operator_jobs", phase="Running") == 0
    assert value("operator_nodes_excluded") == 1
    assert value("operator_node_exclusions", node="node-1") == 1
    report = ProgressReport(
        attempt="3-c",
        attempt_number=3,
        at=at(99),
        step=120,
        loss=1.0,
        checkpoint=CheckpointReport(committed_step=110, committed_at=at(98)),
    )
    metrics.show("team", "gpt", JobSample(status, job().spec, progress=report))
    assert (value("job_step", **KEY), value("job_checkpoint_step", **KEY)) == (120, 110), "fresher than the status"
    assert value("job_progress_timestamp_seconds", **KEY) == at(99).timestamp(), "when it was heard"
    metrics.forget("team", "gpt")
    assert value("job_step", **KEY) is None


def test_a_finding_is_shown_while_its_attempt_is_current_and_some_time_more(registry, job, at) -> None:
    now = [100.0]
    metrics = JobMetrics(registry, clock=lambda: at(now[-1]).timestamp())
    spec = AnomalySpec(
        job="gpt",
        attempt="1-a",
        kind=AnomalyKind.SLOW,
        worker=1,
        node="node-1",
        confidence=1,
        evidence="slow",
        first_seen=at(50),
        last_seen=at(60),
    )
    labels = {**KEY, "kind": "slow", "node": "node-1", "worker": "1"}

    def shown(attempt: str, phase: Phase = Phase.RUNNING) -> bool:
        status = TrainingJobStatus(phase=phase, attempt=CurrentAttempt(number=1, id=attempt))
        metrics.show("team", "gpt", JobSample(status, job().spec, (AnomalyView("a", spec),)))
        return registry.get_sample_value("sternpost_job_anomaly", labels) == 1

    assert shown("1-a")
    assert shown("2-b")
    now.append(60 + ANOMALY_SECONDS)
    assert not shown("2-b")
    assert shown("1-a")
    assert not shown("1-a", Phase.SUCCEEDED)
