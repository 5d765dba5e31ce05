from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from sternpost_operator.operator_process import wake
from sternpost_operator.operator_process.wake import next_look
from sternpost_operator.recovery.observed import NodeView, Observed, PodPhase, PodView
from sternpost_operator.resources.attempt import AttemptAction, AttemptSpec
from sternpost_operator.resources.progress import ProgressReport
from sternpost_operator.resources.training_job_status import (
    Cause,
    ExcludedNode,
    Incident,
    Phase,
    Recovery,
    TrainingJobStatus,
)


@pytest.fixture
def well(at) -> Observed:
    """Two workers that run on two good nodes, and worker 0 that answers."""
    pods = tuple(
        PodView(f"gpt-{slot}", f"u{slot}", slot, PodPhase.RUNNING, node=f"node-{slot}", ready=True) for slot in (0, 1)
    )
    nodes = tuple(NodeView(f"node-{number}", True, at(0)) for number in (0, 1))
    return Observed(pods=pods, nodes=nodes, progress=ProgressReport(attempt="1-a", attempt_number=1, at=at(0)))


def test_a_job_that_runs_is_looked_at_now_and_then(job, at, well) -> None:
    assert next_look(job(TrainingJobStatus(phase=Phase.RUNNING)), well, at(0)) == wake.QUIET_SECONDS


def test_one_whose_worker_0_is_silent_more_often(job, at, well) -> None:
    silent = replace(well, progress=None)
    assert next_look(job(TrainingJobStatus(phase=Phase.RUNNING)), silent, at(0)) == wake.SILENT_SECONDS


@pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.FAILED])
def test_a_job_that_ended_needs_no_clock(job, at, phase) -> None:
    assert next_look(job(TrainingJobStatus(phase=phase, finished_at=at(0))), Observed(), at(0)) is None


def test_a_job_that_ended_and_is_to_be_deleted_is_looked_at_in_time(job, at) -> None:
    ended = job(TrainingJobStatus(phase=Phase.SUCCEEDED, finished_at=at(0)), ttlSecondsAfterFinished=100)
    assert next_look(ended, Observed(), at(40)) == pytest.approx(60)
    assert next_look(ended, Observed(), at(500)) == wake.MOVING_SECONDS


def test_what_the_memory_service_has_not_taken_is_told_again(job, at) -> None:
    incident = Incident(id="i", at=at(0), text="t")
    ended = job(TrainingJobStatus(phase=Phase.FAILED, finished_at=at(0), unsent_incidents=[incident]))
    assert next_look(ended, Observed(), at(0)) == wake.UNSENT_SECONDS


@pytest.mark.parametrize("phase", list(Phase))
def test_pods_that_are_being_deleted_are_watched_to_their_end(job, at, well, phase) -> None:
    leaving = replace(well, pods=(replace(well.pods[0], deleting_since=at(0)),))
    assert next_look(job(TrainingJobStatus(phase=phase)), leaving, at(0)) == wake.MOVING_SECONDS


def test_evidence_is_looked_at_often(job, at, well) -> None:
    noticed = job(TrainingJobStatus(phase=Phase.RUNNING, recovery=Recovery(detected_at=at(0))))
    assert next_look(noticed, well, at(0)) == wake.EVIDENCE_SECONDS
    again = Recovery(detected_at=at(0), decided_at=at(1), cause=Cause.POD_LOST, again_at=at(2))
    assert next_look(job(TrainingJobStatus(phase=Phase.RECOVERING, recovery=again)), well, at(3)) == (
        wake.EVIDENCE_SECONDS
    )


def test_a_node_that_is_not_ready_or_gone_is_evidence(job, at, well) -> None:
    running = job(TrainingJobStatus(phase=Phase.RUNNING))
    unready = replace(well, nodes=(well.nodes[0], replace(well.nodes[1], ready=False)))
    assert next_look(running, unready, at(0)) == wake.EVIDENCE_SECONDS
    assert next_look(running, replace(well, nodes=well.nodes[:1]), at(0)) == wake.EVIDENCE_SECONDS
    foreign = replace(well, nodes=(*well.nodes, NodeView("node-9", False, at(0))))
    assert next_look(running, foreign, at(0)) == wake.QUIET_SECONDS, "no Pod of the job is there"


def test_a_job_that_waits_for_nodes_waits_patiently(job, at, well) -> None:
    waiting = replace(well.pods[1], phase=PodPhase.PENDING, node=None, ready=False)
    pending = job(TrainingJobStatus(phase=Phase.PENDING))
    seen = replace(well, pods=(well.pods[0], waiting), progress=None)
    assert next_look(pending, seen, at(0)) == wake.CAPACITY_SECONDS
    starting = replace(waiting, node="node-1")
    assert next_look(pending, replace(seen, pods=(well.pods[0], starting)), at(0)) == wake.MOVING_SECONDS


def test_a_complete_attempt_is_watched_to_its_end(job, at, well) -> None:
    attempt = AttemptSpec(
        job="gpt", job_uid="u-1", number=1, id="1-a", action=AttemptAction.RUN, complete=True, issued_at=at(0)
    )
    running = job(TrainingJobStatus(phase=Phase.RUNNING))
    assert next_look(running, replace(well, attempt=attempt), at(0)) == wake.MOVING_SECONDS


def test_suspension_is_watched_and_then_left_alone(job, at, well) -> None:
    assert next_look(job(TrainingJobStatus(phase=Phase.RUNNING), suspend=True), well, at(0)) == wake.MOVING_SECONDS
    suspended = TrainingJobStatus(phase=Phase.SUSPENDED)
    assert next_look(job(suspended, suspend=True), Observed(), at(0)) is None
    assert next_look(job(suspended), Observed(), at(0)) == wake.MOVING_SECONDS


def test_an_exclusion_that_ends_wakes_the_job(job, at, well) -> None:
    node = ExcludedNode(node="node-7", since=at(0), until=at(4))
    running = job(TrainingJobStatus(phase=Phase.RUNNING, excluded_nodes=[node]))
    assert next_look(running, well, at(0)) == pytest.approx(4)
    far = node.model_copy(update={"until": at(0) + timedelta(days=400)})
    suspended = job(TrainingJobStatus(phase=Phase.SUSPENDED, excluded_nodes=[far]), suspend=True)
    assert next_look(suspended, Observed(), at(0)) == wake.LONGEST_SECONDS
