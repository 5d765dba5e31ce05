"""What a user does first: install the chart, apply a job, look at it, and have the weights."""

from __future__ import annotations

from collections.abc import Callable

from cluster_job import ClusterJob
from kube import Kube


def test_three_workers_train_over_three_nodes_to_the_weights_of_a_local_run(
    job: ClusterJob, kube: Kube, local_hash: Callable[..., str]
) -> None:
    job.spread = "DoNotSchedule"
    job.apply()
    job.wait_phase("Running")
    placed = job.nodes()
    assert len(set(placed.values())) == 3, placed
    done = job.wait_succeeded()
    assert done["status"]["restarts"] == 0, done["status"]
    assert job.final_hash() == local_hash(job.workers, job.steps)

    # kubectl tells the whole story.
    header, row = kube.kubectl("get", "tj", job.name, namespace=job.namespace).splitlines()
    shown = dict(zip(header.split(), row.split(), strict=True))
    assert shown["PHASE"] == "Succeeded", shown
    assert shown["STEP"] == str(job.steps), shown
    assert shown["WORKERS"] == "3", shown
    story = kube.kubectl("describe", "tj", job.name, namespace=job.namespace)
    for words in ("AttemptIssued", "RanksRunning", "Succeeded", str(done["status"]["attempt"]["id"])):
        assert words in story, f"{words} is not in the story:\n{story}"
