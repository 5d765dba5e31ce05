"""Parts of the control plane, and of Sternpost's own, that stop: no job is harmed, no Pod is made twice, nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from chart_release import SYSTEM
from cluster_job import ClusterJob, random_step
from harness.faults import Faults
from kube import Kube, NotInTimeError
from operator_view import CONTAINER, LEASE, holder, leader, operator_metrics

TAKE_OVER_SECONDS = 15
ETCD_PAUSE_SECONDS = 20
READ_FACTS = Path(__file__).parents[1] / "support" / "read_facts.py"


def uids(job: ClusterJob) -> dict[str, str]:
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in job.pods()}


def started(job: ClusterJob) -> dict[str, str]:
    """Apply the job and wait until it trains; returns the uids of its Pods."""
    job.apply()
    job.wait_step(random_step(3, 15))
    return uids(job)


def finished_unharmed(job: ClusterJob, pods: dict[str, str], expected: str) -> None:
    """It ends without a restart, in the Pods that it had, with the weights of an undisturbed run."""
    while job.object()["status"]["phase"] == "Running":
        assert uids(job) == pods, "a Pod was made anew"
        time.sleep(0.5)
    done = job.wait_succeeded()
    assert done["status"]["restarts"] == 0, done["status"]["attempts"]
    assert job.final_hash() == expected


def test_another_replica_leads_within_15_s_of_a_kill_of_the_leader(
    job: ClusterJob, faults: Faults, kube: Kube, local_hash: Callable[..., str]
) -> None:
    pods = started(job)
    lease = kube.get("lease", LEASE, SYSTEM)
    assert lease is not None
    old = leader(kube)
    killed = time.monotonic()
    faults.kill_container(SYSTEM, old, CONTAINER)
    kube.wait_for(
        "lease",
        LEASE,
        lambda now: holder(now) not in ("", holder(lease)),
        f"held by another than {holder(lease)}",
        namespace=SYSTEM,
        seconds=3 * TAKE_OVER_SECONDS,
    )
    took = time.monotonic() - killed
    assert took <= TAKE_OVER_SECONDS, f"{took:.1f} s"
    finished_unharmed(job, pods, local_hash(job.workers, job.steps))


def test_a_killed_api_server_harms_no_job(job: ClusterJob, faults: Faults, local_hash: Callable[..., str]) -> None:
    pods = started(job)
    faults.kill_component("kube-apiserver")
    faults.start_component("kube-apiserver")
    finished_unharmed(job, pods, local_hash(job.workers, job.steps))


def test_an_etcd_that_stands_still_for_20_s_harms_no_job(
    job: ClusterJob, faults: Faults, local_hash: Callable[..., str]
) -> None:
    job.step_seconds = 1.0
    pods = started(job)
    with faults.paused("etcd"):
        time.sleep(ETCD_PAUSE_SECONDS)  # the fault's own length
    finished_unharmed(job, pods, local_hash(job.workers, job.steps))


def facts_of(kube: Kube, space: str, entity: str) -> str:
    """What the memory service knows of an entity, as the operator's own Pod is told it."""
    program = READ_FACTS.read_text()
    return kube.kubectl(
        *("exec", "--stdin", leader(kube), "--container", CONTAINER, "--", "python3", "-", space, entity),
        namespace=SYSTEM,
        stdin=program,
    )


def test_nothing_is_lost_while_the_memory_service_and_redis_are_away(
    job: ClusterJob, faults: Faults, kube: Kube, local_hash: Callable[..., str]
) -> None:
    job.spec["memory"] = {"space": job.namespace}
    started(job)
    kube.kubectl("scale", "deployment/sternpost-memory", "--replicas=0", namespace=SYSTEM)
    try:
        for pod in kube.items("pods", SYSTEM, "--selector", "app.kubernetes.io/component=redis"):
            faults.kill_container(SYSTEM, pod["metadata"]["name"], "redis")
        victim = job.pods()[1]["metadata"]["name"]
        kube.kubectl("delete", "pod", victim, "--grace-period=0", "--force", namespace=job.namespace)
        done = job.wait_succeeded()
        assert done["status"]["restarts"] == 1
        assert operator_metrics(kube)["sternpost_operator_incidents_unsent"] > 0
    finally:
        kube.kubectl("scale", "deployment/sternpost-memory", "--replicas=1", namespace=SYSTEM)
    kube.kubectl("rollout", "status", "deployment/sternpost-memory", "--timeout=120s", namespace=SYSTEM, timeout=150)
    assert job.final_hash() == local_hash(job.workers, job.steps)
    wait_until_sent(kube)
    assert done["status"]["attempts"][0]["cause"] in facts_of(kube, job.namespace, f"job/{job.name}")


def wait_until_sent(kube: Kube, seconds: float = 90) -> None:
    """Wait until the operator has no incident left that the memory service has not acknowledged."""
    deadline = time.monotonic() + seconds
    while operator_metrics(kube).get("sternpost_operator_incidents_unsent") != 0:
        if time.monotonic() > deadline:
            raise NotInTimeError(f"incidents are still unsent after {seconds:g} s")
        time.sleep(0.5)
