"""A node, or somebody with the right to, announces the end of a worker: a checkpoint just in time, then the move."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.faults import Faults
from harness.report import say
from kube import Kube
from node_tests import MAINTENANCE, AskedJob, untouched, worker_on


@pytest.fixture
def asked(kube: Kube, chart: str, namespace: str, storage: Path) -> AskedJob:
    """A job that saves nothing by itself before its end."""
    return AskedJob(kube, namespace, storage)


@pytest.fixture
def taints(faults: Faults, kube: Kube) -> Iterator[Callable[[str], None]]:
    """Announce that a node goes; it stays after all once the test is over."""
    tainted: list[str] = []

    def announce(node: str) -> None:
        tainted.append(node)
        faults.taint(node, f"{MAINTENANCE}=soon:NoExecute")

    yield announce
    for node in tainted:
        faults.taint(node, f"{MAINTENANCE}-")


def saved_before_the_move(job: AskedJob, node: str, local_hash: Callable[..., str]) -> dict[str, Any]:
    """Wait for the end; the record of the one recovery, which went back to the checkpoint that was asked for."""
    done = job.wait_succeeded()
    [record] = done["status"]["attempts"]
    say(f"{record['message']}; stages {record['stages']}")
    assert (record["cause"], record["node"]) == ("NodeLeaving", node), record
    assert "was saved before" in record["message"], record
    assert record["resumedStep"] > 0, "nothing else was ever saved"
    assert record["lostSteps"] < 20, record
    assert done["status"].get("excludedNodes", []) == [], "to leave is no offence"
    assert job.final_hash() == local_hash(job.workers, job.steps)
    return record


def test_a_taint_that_is_tolerated_for_a_while_leaves_time_for_a_checkpoint(
    asked: AskedJob, kube: Kube, taints: Callable[[str], None], local_hash: Callable[..., str]
) -> None:
    asked.tolerated_seconds = 60
    asked.steps = 120
    asked.apply()
    asked.wait_step(20)
    pod, node = worker_on(asked, 1)
    say(f"{node} with {pod} announces its end after step {asked.step()}")
    taints(node)
    asked.wait_phase("Recovering", "Starting")
    asked.wait_phase("Running")
    assert node not in asked.nodes().values()
    saved_before_the_move(asked, node, local_hash)
    untouched(kube)


def test_a_worker_that_is_evicted_has_a_moment_for_a_checkpoint(
    asked: AskedJob, kube: Kube, local_hash: Callable[..., str]
) -> None:
    asked.steps = 120
    asked.apply()
    asked.wait_step(20)
    pod, node = worker_on(asked, 1)
    say(f"{pod} on {node} is evicted after step {asked.step()}")
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": asked.namespace},
    }
    path = f"/api/v1/namespaces/{asked.namespace}/pods/{pod}/eviction"
    kube.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    asked.wait_phase("Recovering", "Starting")
    record = saved_before_the_move(asked, node, local_hash)
    assert "EvictionByEvictionAPI" in record["message"]
