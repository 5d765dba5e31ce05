from __future__ import annotations

import pytest

from sternpost_operator.operator_process.diary import JobName, entries
from sternpost_operator.operator_process.events import event_of
from sternpost_operator.resources.training_job_status import (
    Cause,
    Condition,
    CurrentAttempt,
    ExcludedNode,
    Goodput,
    Phase,
    Recovery,
    Rung,
    SuspectedNode,
    TrainingJobStatus,
    Workers,
)

JOB = JobName("team", "gpt", "u-1")
LOST = "node node-1 has not been ready for 10 s"


def told(before, after, at, now: float = 100) -> list[tuple[str, str, bool]]:
    return [(entry.reason, entry.message, entry.warning) for entry in entries(before, after, at(now))]


@pytest.fixture
def running(at) -> TrainingJobStatus:
    attempt = CurrentAttempt(number=1, id="1-a", issued_at=at(1), assignment="d", running_at=at(2), first_step_at=at(3))
    return TrainingJobStatus(phase=Phase.RUNNING, attempt=attempt, workers=Workers(desired=3))


def test_the_start_of_a_job(running, at) -> None:
    assert told(TrainingJobStatus(), running, at) == [
        ("AttemptIssued", "Attempt 1 is issued (1-a): 3 workers.", False),
        ("RanksRunning", "All ranks of 1-a run.", False),
        ("FirstStep", "Attempt 1 made its first step.", False),
    ]


def test_nothing_new_is_nothing_to_tell(running, at) -> None:
    assert told(running, running, at) == []


def test_a_failure_with_its_cause_node_and_evidence(running, at, record) -> None:
    recovery = Recovery(
        detected_at=at(10),
        decided_at=at(12),
        cause=Cause.NODE_LOST,
        rung=Rung.PODS,
        node="node-1",
        worker=1,
        message=LOST,
    )
    node = ExcludedNode(node="node-1", since=at(12), until=at(3600), reason="lost")
    after = running.model_copy(
        update={
            "phase": Phase.RECOVERING,
            "recovery": recovery,
            "attempts": [record(1)],
            "attempt": CurrentAttempt(number=2, id="2-b", issued_at=at(12)),
            "excluded_nodes": [node],
        }
    )
    assert told(running, after, at) == [
        (
            "NodeLost",
            f"Attempt 1 ended with NodeLost of worker 1 on node node-1: {LOST}; what failed is replaced, the other Pods stay.",
            True,
        ),
        ("NodeExcluded", "Node node-1 gets no workers of this job until 2026-01-01 01:00:00 UTC: lost", True),
    ]
    assert told(after, running.model_copy(update={"attempts": [record(1)]}), at, 4000)[-1] == (
        "NodeReadmitted",
        "Node node-1 may get workers of this job again.",
        False,
    )


def test_a_recovery_is_told_once_with_its_stages(running, at, record) -> None:
    open_record = record(1, detect=10.0)
    done = record(1, detect=10.0, decide=2.0, first_step=4.5).model_copy(update={"lost_steps": 7, "resumed_step": 40})
    stages = "detect 10.0 s, decide 2.0 s, first step 4.5 s"
    before = running.model_copy(update={"attempts": [open_record]})
    after = running.model_copy(update={"attempts": [done]})
    assert told(before, after, at) == [
        (
            "Recovered",
            f"Recovered from NodeLost of attempt 1, resumed from step 40, 7 steps lost ({stages}).",
            False,
        )
    ]
    assert told(after, after, at) == []


def test_a_suspected_node(running, at) -> None:
    after = running.model_copy(
        update={"suspected_nodes": [SuspectedNode(node="node-2", last_at=at(5), reason="it hung")]}
    )
    assert told(running, after, at) == [
        ("NodeSuspected", "Node node-2 is suspected; blamed again, it is left: it hung", True)
    ]


def test_conditions_that_are_not_as_they_should_be_and_that_they_are_again(running, at) -> None:
    def condition(kind: str, status: str, reason: str, message: str = "") -> TrainingJobStatus:
        each = Condition(type=kind, status=status, reason=reason, message=message, last_transition_time=at(7))
        return running.model_copy(update={"conditions": [each]})

    refused = condition("Accepted", "False", "Invalid", "spec.workers: is 0")
    assert told(running, refused, at) == [("Invalid", "Accepted is False (Invalid). spec.workers: is 0", True)]
    assert told(refused, condition("Accepted", "True", "Understood"), at) == [
        ("Accepted", "Accepted is True (Understood).", False)
    ]
    failing = condition("CheckpointsFailing", "True", "StorageRefused", "no space")
    assert told(running, failing, at) == [
        ("CheckpointsFailing", "CheckpointsFailing is True (StorageRefused). no space", True)
    ]
    assert told(running, condition("Schedulable", "True", "PodsScheduled"), at) == [], "that is no news"


def test_ends_suspension_and_resumption(running, at) -> None:
    done = running.model_copy(
        update={
            "phase": Phase.SUCCEEDED,
            "finished_at": at(50),
            "restarts": 2,
            "lost_steps": 7,
            "goodput": Goodput(ratio=0.93),
        }
    )
    assert told(running, done, at) == [
        ("Succeeded", "All workers exited with 0; 2 restarts, 7 steps lost, goodput 93%.", False)
    ]
    failed = Condition(
        type="Failed", status="True", reason="BudgetExceeded", message="No way.", last_transition_time=at(50)
    )
    over = running.model_copy(update={"phase": Phase.FAILED, "finished_at": at(50), "conditions": [failed]})
    assert told(running, over, at) == [("Failed", "BudgetExceeded: No way.", True)]
    suspended = running.model_copy(update={"phase": Phase.SUSPENDED})
    assert [each[0] for each in told(running, suspended, at)] == ["Suspended"]
    pending = running.model_copy(update={"phase": Phase.PENDING})
    assert [each[0] for each in told(suspended, pending, at)] == ["Resumed"]


def test_the_same_news_has_the_same_name_whoever_tells_it(running, at) -> None:
    first = [entry.name(JOB) for entry in entries(None, running, at(100))]
    again = [entry.name(JOB) for entry in entries(None, running, at(999))]
    assert first == again
    assert len(set(first)) == len(first)
    assert all(name.startswith("gpt.") for name in first)
    other = JobName("team", "gpt", "u-2")
    assert {entry.name(other) for entry in entries(None, running, at(100))}.isdisjoint(first)


def test_an_event_as_the_api_server_takes_it(running, at) -> None:
    entry = entries(None, running, at(100))[0]
    event = event_of(JOB, entry, "replica-1")
    assert event["involvedObject"] == {
        "apiVersion": "sternpost.dev/v1alpha1",
        "kind": "TrainingJob",
        "namespace": "team",
        "name": "gpt",
        "uid": "u-1",
    }
    assert (event["firstTimestamp"], event["type"]) == ("2026-01-01T00:00:01Z", "Normal")
