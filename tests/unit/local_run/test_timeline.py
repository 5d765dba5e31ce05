from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_operator.local_run.snapshot import Injected, LoopState, Snapshot
from sternpost_operator.local_run.timeline import Level, events
from sternpost_operator.recovery.observed import AnomalyView, Observed
from sternpost_operator.resources.anomaly import AnomalySpec
from sternpost_operator.resources.training_job_status import (
    AttemptRecord,
    Cause,
    CheckpointStatus,
    Condition,
    CurrentAttempt,
    ExcludedNode,
    Phase,
    Recovery,
    Rung,
    Stages,
    SuspectedNode,
    TrainingJobStatus,
)

Build = Callable[..., Snapshot]
At = Callable[[float], datetime]


def texts(before: Snapshot | None, after: Snapshot) -> list[str]:
    return [event.text for event in events(before, after)]


def test_nothing_new_is_no_event(snapshot: Build) -> None:
    assert texts(snapshot(1, nodes={"node-0": True}), snapshot(2, nodes={"node-0": True})) == []


def test_nodes_come_and_go(snapshot: Build) -> None:
    both = snapshot(1, nodes={"node-0": True, "node-1": True})
    assert texts(None, both) == ["nodes ready: node-0, node-1"]
    assert texts(both, snapshot(2, nodes={"node-0": True, "node-1": False})) == ["node node-1 is not ready"]
    assert texts(both, snapshot(2, nodes={"node-0": True})) == ["node node-1 is gone"]


def test_a_recovery_from_injection_to_first_step(snapshot: Build, at: At) -> None:
    running = TrainingJobStatus(phase=Phase.RUNNING, attempt=CurrentAttempt(number=1, id="1-a"))
    before = snapshot(10, running, placed={1: ("gpt-1", "node-1")})
    injected = Injected(
        id="x", spec="x", kind="kill", at=at(11).timestamp(), node="node-1", what="node node-1 is killed"
    )
    seen = Recovery(detected_at=at(12), message="node-1 is not ready")
    decided = seen.model_copy(
        update={"decided_at": at(13), "cause": Cause.NODE_LOST, "rung": Rung.PODS, "node": "node-1", "worker": 1}
    )
    during = snapshot(
        14,
        TrainingJobStatus(
            phase=Phase.RECOVERING,
            attempt=running.attempt,
            recovery=decided,
            excluded_nodes=[ExcludedNode(node="node-1", since=at(13), until=at(999), reason="lost")],
        ),
        placed=before.placed,
        injected=(injected,),
    )
    assert texts(before, during) == [
        "injected: node node-1 is killed",
        "noticed: node-1 is not ready",
        "decided: NodeLost of worker 1 on node-1: replace the Pod",
        "node node-1 is excluded: lost",
    ]
    record = AttemptRecord(
        number=1,
        id="1-a",
        cause=Cause.NODE_LOST,
        detected_at=at(12),
        decided_at=at(13),
        stages=Stages(detect=1, decide=1, terminate=0.5, start=2, restore=0.25, first_step=0.25),
        lost_steps=4,
    )
    after = snapshot(
        20,
        TrainingJobStatus(
            phase=Phase.RUNNING,
            attempt=CurrentAttempt(
                number=2, id="2-b", issued_at=at(14), running_at=at(18), first_step_at=at(19), restored_step=40
            ),
            attempts=[record],
            excluded_nodes=during.loop.job.status.excluded_nodes,
        ),
        placed={1: ("gpt-2", "node-2")},
        injected=(injected,),
    )
    assert texts(during, after) == [
        "attempt 2 is issued",
        "attempt 2: all ranks run",
        "attempt 2: first step, resumed from step 40",
        (
            "recovered from NodeLost in 5.0 s, 4 steps lost "
            "(detect 1.0, decide 1.0, terminate 0.5, start 2.0, restore 0.2, first step 0.2)"
        ),
        "worker 1 moves from node-1 (gpt-1) to node-2 (gpt-2)",
    ]
    assert texts(after, after) == []


def test_suspicion_anomaly_checkpoint_condition_and_end(snapshot: Build, at: At) -> None:
    anomaly = AnomalyView(
        "1-a-hang-0",
        AnomalySpec(
            job="gpt",
            attempt="1-a",
            kind="hang",
            worker=0,
            node="node-0",
            confidence=0.9,
            evidence="no step for 8 s",
            first_seen=at(5),
            last_seen=at(6),
        ),
    )
    status = TrainingJobStatus(
        phase=Phase.SUCCEEDED,
        finished_at=at(9),
        suspected_nodes=[SuspectedNode(node="node-0", last_at=at(7), reason="hang")],
        checkpoint=CheckpointStatus(last_step=10),
        conditions=[
            Condition(type="ProgressUnknown", status="True", reason="NoSteps", message="m", last_transition_time=at(8)),
            Condition(type="Complete", status="True", last_transition_time=at(8)),
        ],
    )
    found = events(snapshot(4), snapshot(10, status, observed=Observed(anomalies=(anomaly,))))
    assert [(event.text, event.level) for event in found] == [
        ("eagle-eye: hang: worker 0 on node-0 (90% sure): no step for 8 s", Level.WARNING),
        ("node node-0 is suspected: hang", Level.WARNING),
        ("condition ProgressUnknown=True (NoSteps): m", Level.INFO),
        ("job succeeded", Level.GOOD),
        ("first checkpoint is committed: step 10", Level.INFO),
    ]


def test_a_restarted_service_is_told_once(snapshot: Build) -> None:
    after = snapshot(2, restarted=(("operator loop", 1),))
    assert texts(snapshot(1, restarted=(("operator loop", 0),)), after) == [
        "operator loop had died and was started again"
    ]
    assert texts(after, after) == []


def test_without_a_loop_there_is_only_what_the_supervisor_knows(at: At) -> None:
    assert events(None, Snapshot(at=1, started_at=0)) == []


statuses = st.builds(
    TrainingJobStatus,
    phase=st.sampled_from(Phase),
    attempt=st.builds(CurrentAttempt, number=st.integers(0, 3), restored_step=st.none() | st.integers(0, 5)),
    checkpoint=st.none() | st.builds(CheckpointStatus, last_step=st.none() | st.integers(0, 9)),
    restarts=st.integers(0, 3),
)


@given(first=statuses, second=statuses)
@settings(deadline=None, derandomize=True, max_examples=60)
def test_any_two_statuses_give_events_in_order_and_none_twice(
    first: TrainingJobStatus, second: TrainingJobStatus
) -> None:
    metadata = {"name": "gpt"}
    spec = {"workers": 1, "template": {"spec": {"containers": [{"name": "trainer"}]}}}

    def shot(seconds: float, status: TrainingJobStatus) -> Snapshot:
        loop = LoopState.model_validate(
            {"at": seconds, "job": {"metadata": metadata, "spec": spec, "status": status.to_wire()}}
        )
        return Snapshot(at=seconds, started_at=0, loop=loop)

    found = events(shot(1, first), shot(2, second))
    assert found == sorted(found, key=lambda event: event.at)
    assert events(shot(2, second), shot(3, second)) == []
