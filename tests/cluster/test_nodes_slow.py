"""What a job's own sidecars say of a node moves that job, and does nothing to anybody else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cluster_job import ClusterJob
from harness.faults import Faults
from harness.report import say
from kube import Kube
from node_tests import BurningJob, report_slow, untouched, worker_on


def test_a_node_that_the_job_calls_slow_is_left_by_that_job_alone(
    job: ClusterJob, kube: Kube, local_hash: Callable[..., str]
) -> None:
    job.apply()
    job.wait_step(10)
    node = report_slow(job, 1)
    say(f"worker 1 on {node} is called slow")
    job.wait_phase("Recovering", "Starting")
    job.wait_phase("Running")
    assert node not in job.nodes().values()
    untouched(kube)
    done = job.wait_succeeded()
    [record] = done["status"]["attempts"]
    assert (record["cause"], record["node"], record["worker"]) == ("SlowNode", node, 1)
    [excluded] = done["status"]["excludedNodes"]
    assert excluded["node"] == node
    assert not excluded.get("proven"), "what a job says of a node is no proof"
    assert job.final_hash() == local_hash(job.workers, job.steps)
    untouched(kube)


def test_a_node_that_is_slow_is_named_by_eagle_eye(
    kube: Kube, chart: str, namespace: str, storage: Path, faults: Faults
) -> None:
    job = BurningJob(kube, namespace, storage, steps=400)
    job.spec = {
        "eagleEye": {
            "intervalSeconds": 1,
            "hang": {"factor": 20, "minSeconds": 120, "initSeconds": 240},
            "slow": {"ratio": 1.5, "seconds": 40, "minSteps": 5},
        }
    }
    job.apply()
    job.wait_step(20)
    # Not the node of worker 0, whose sidecar judges: it must be able to. And one worker's alone: two of three are not believed.
    placed = {index: worker_on(job, index) for index in range(job.workers)}
    nodes = [node for _, node in placed.values()]
    pod, node = next(each for index, each in placed.items() if index and nodes.count(each[1]) == 1)
    say(f"{node} with {pod} gets a fraction of a processor")
    with faults.slow_node(node, cores=0.12):
        job.wait_phase("Recovering", seconds=180)
        found = job.object()
        [record] = found["status"]["attempts"]
        assert (record["cause"], record["node"]) == ("SlowNode", node), record
        untouched(kube)
    job.wait_phase("Running")
    assert node not in job.nodes().values()
