"""A node that is gone, for good or for a while: the job goes on elsewhere, to the same weights."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from cluster_job import ClusterJob, random_step
from harness.faults import Faults
from harness.report import say
from kube import Kube, Object
from operator_view import growth, replica_metrics

POD_STAGES = {"detect", "delete", "create", "ready", "firstStep"}


def random_worker(job: ClusterJob) -> tuple[str, str]:
    """A Pod of the job, another one each time, and its node."""
    chance = random.Random(time.time_ns())  # noqa: S311 -- the victim shall differ
    return chance.choice(sorted(job.nodes().items()))


def only_attempt(job: Object) -> dict[str, Any]:
    """The record of the job's one recovery."""
    attempts: list[dict[str, Any]] = job["status"]["attempts"]
    assert len(attempts) == 1, attempts
    return attempts[0]


def test_a_node_that_dies_is_left_and_the_job_goes_on_elsewhere(
    job: ClusterJob, faults: Faults, kube: Kube, local_hash: Callable[..., str]
) -> None:
    before = replica_metrics(kube)
    moment = random_step()
    job.apply()
    job.wait_step(moment)
    pod, node = random_worker(job)
    old = {each["metadata"]["name"]: each["metadata"]["uid"] for each in job.pods()}
    say(f"{node} with {pod} dies after step {moment}")
    faults.lose_node(node)
    job.wait_phase("Recovering", "Starting")
    job.wait_phase("Running")
    now = {each["metadata"]["name"]: each for each in job.pods()}
    assert node not in {each["spec"]["nodeName"] for each in now.values()}, "a Pod stands on the dead node"
    assert now[pod]["metadata"]["uid"] != old[pod], "the dead node's Pod blocks its slot"
    done = job.wait_succeeded()
    record = only_attempt(done)
    assert record["node"] == node
    assert set(record["stages"]) >= POD_STAGES, record["stages"]
    assert [each["node"] for each in done["status"]["excludedNodes"]] == [node]
    assert job.final_hash() == local_hash(job.workers, job.steps)
    after = replica_metrics(kube)
    for stage in ("detect", "delete", "create", "ready", "first_step"):
        name = f'sternpost_operator_recovery_stage_seconds_count{{stage="{stage}"}}'
        assert growth(before, after, name) >= 1, f"{name} does not count it"


def test_an_old_worker_behind_a_cut_cannot_join_commit_or_report_when_it_is_back(
    job: ClusterJob, faults: Faults, kube: Kube, local_hash: Callable[..., str]
) -> None:
    job.steps = 150
    job.apply()
    job.wait_step(random_step(5, 30))
    pod, node = random_worker(job)
    old = job.object()["status"]["attempt"]
    say(f"the cable of {node} with {pod} is pulled in attempt {old['number']} after step {job.step()}")
    faults.cut_node(node)
    job.wait_phase("Recovering", "Starting")
    job.wait_phase("Running")
    current = job.object()["status"]["attempt"]
    assert current["number"] > old["number"]
    job.wait_step(1 + job.step())  # the replacement makes steps, while the old worker still lives
    faults.mend_node(node)
    kube.wait_for("node", node, _ready, "ready again", seconds=60)
    done = job.wait_succeeded()
    assert only_attempt(done)["id"] == old["id"], "the old worker's return ended an attempt"
    assert done["status"]["attempt"]["id"] == current["id"]
    stored = job.stored()
    first = min((row.step for row in stored.ledger if row.run == current["number"]), default=0)
    late = [row for row in stored.ledger if row.run == old["number"] and row.step >= first]
    assert not late, f"committed by the old attempt after the new one: {late}"
    reported = [each["spec"] for each in kube.items("anomalies", job.namespace)]
    cut_off = [each for each in reported if each["attempt"] == old["id"] and each["lastSeen"] > current["issuedAt"]]
    assert not cut_off, f"reported by the old attempt after the new one was issued: {cut_off}"
    assert job.final_hash() == local_hash(job.workers, job.steps)


def _ready(node: Object) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in node["status"]["conditions"])
