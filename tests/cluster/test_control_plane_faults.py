"""Parts of the control plane, and of Sternpost's own, that stop: no job is harmed, no Pod is made twice, nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from chart_release import SYSTEM
from cluster_job import ClusterJob
from harness.faults import Faults
from harness.report import step
from kube import Kube, NotInTimeError
from operator_view import CONTAINER, LEASE, holder, leader, operator_metrics

TAKE_OVER_SECONDS = 15
ETCD_PAUSE_SECONDS = 20
READ_FACTS = Path(__file__).parents[1] / "support" / "read_facts.py"


def uids(job: ClusterJob) -> dict[str, str]:
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in job.pods()}


def kill_leader(kube: Kube, faults: Faults) -> float:
    """Kill the leading operator as `kill -9` does; returns the seconds until another one leads."""
    lease = kube.get("lease", LEASE, SYSTEM)
    assert lease is not None
    old = holder(lease)
    killed = time.monotonic()
    faults.kill_container(SYSTEM, leader(kube), CONTAINER)
    kube.wait_for(
        "lease",
        LEASE,
        lambda now: holder(now) not in ("", old),
        f"held by another than {old}",
        namespace=SYSTEM,
        seconds=4 * TAKE_OVER_SECONDS,
    )
    return time.monotonic() - killed


def test_leader_api_server_and_etcd_stop_one_after_another_and_the_job_does_not_notice(
    job: ClusterJob, faults: Faults, kube: Kube, local_hash: Callable[..., str]
) -> None:
    job.step_seconds = 1.5
    job.apply()
    job.wait_step(2)
    pods = uids(job)
    with step("kill -9 of the leader"):
        took = kill_leader(kube, faults)
    with step("kill -9 and restart of the API server"):
        faults.kill_component("kube-apiserver")
        faults.start_component("kube-apiserver")
    with step(f"etcd stands still for {ETCD_PAUSE_SECONDS} s"), faults.paused("etcd"):
        time.sleep(ETCD_PAUSE_SECONDS)  # the fault's own length
    assert job.step() < job.steps, "the job was over before all faults had happened"
    while job.object()["status"]["phase"] == "Running":
        assert uids(job) == pods, "a Pod was made anew"
        time.sleep(0.5)
    done = job.wait_succeeded()
    assert done["status"]["restarts"] == 0, done["status"]["attempts"]
    assert job.final_hash() == local_hash(job.workers, job.steps)
    assert took <= TAKE_OVER_SECONDS, f"another replica led after {took:.1f} s"


def facts_of(kube: Kube, space: str, entity: str) -> str:
    """What the memory service knows of an entity, as the operator's own Pod is told it."""
    return kube.kubectl(
        *("exec", "--stdin", leader(kube), "--container", CONTAINER, "--", "python3", "-", space, entity),
        namespace=SYSTEM,
        stdin=READ_FACTS.read_text(),
    )


def test_incidents_wait_while_the_memory_service_and_redis_are_away(
    job: ClusterJob, faults: Faults, kube: Kube, local_hash: Callable[..., str]
) -> None:
    job.apply()
    job.wait_step(2)
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
    assert job.final_hash() == local_hash(job.workers, job.steps)
    kube.kubectl("rollout", "status", "deployment/sternpost-memory", "--timeout=120s", namespace=SYSTEM, timeout=150)
    wait_until_sent(kube)
    record = done["status"]["attempts"][0]
    wait_for_fact(kube, job.namespace, f"node/{record['node']}", record["cause"])


def wait_for_fact(kube: Kube, space: str, entity: str, value: str, seconds: float = 60) -> None:
    """Wait until the fact is known: it is once its observation is consolidated, a few seconds after it was taken."""
    deadline = time.monotonic() + seconds
    while value not in (known := facts_of(kube, space, entity)):
        if time.monotonic() > deadline:
            raise NotInTimeError(f"{value} is no fact about {entity} after {seconds:g} s: {known}")
        time.sleep(0.5)


def wait_until_sent(kube: Kube, seconds: float = 90) -> None:
    """Wait until the operator has no incident left that the memory service has not acknowledged."""
    deadline = time.monotonic() + seconds
    while operator_metrics(kube).get("sternpost_operator_incidents_unsent") != 0:
        if time.monotonic() > deadline:
            raise NotInTimeError(f"incidents are still unsent after {seconds:g} s")
        time.sleep(0.5)
