from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Gauge
from typer.testing import CliRunner

from sternpost_operator.cli import app
from sternpost_operator.cluster.kubernetes.entries import PodEntry
from sternpost_operator.commands.operator import _own_namespace
from sternpost_operator.operator_process.http import build_app, serve
from sternpost_operator.operator_process.lease_keeper import manifest_of, parse
from sternpost_operator.operator_process.logging import configure_logging
from sternpost_operator.operator_process.node_loop import held_nodes
from sternpost_operator.operator_process.options import HARDWARE_CONDITIONS, names, parse_conditions
from sternpost_operator.operator_process.orphans import LOST_SECONDS, to_force
from sternpost_operator.recovery.observed import NodeView, PodPhase, PodView
from sternpost_operator.resources.training_job_status import ExcludedNode, Phase, TrainingJobStatus


def test_conditions_on_the_command_line() -> None:
    assert parse_conditions("GpuHealthy=False, KernelDeadlock=True,") == (
        ("GpuHealthy", "False"),
        ("KernelDeadlock", "True"),
    )
    assert parse_conditions("") == ()
    assert names(" a, ,b ") == ("a", "b")
    for text, words in (
        ("GpuHealthy", "give TYPE=STATUS"),
        ("A=yes", "True, False or Unknown"),
        ("Ready=False", "Ready"),
    ):
        with pytest.raises(ValueError, match=words):
            parse_conditions(text)


def test_bad_hardware_is_known_by_default_and_the_chart_says_by_what() -> None:
    known = parse_conditions(HARDWARE_CONDITIONS)
    assert ("AcceleratedHardwareReady", "False") in known
    values = (Path(__file__).parents[3] / "charts" / "sternpost" / "values.yaml").read_text()
    assert all(f"{kind}={status}" in values for kind, status in known)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--node-drain"], "only a cordoned node is drained"),
        (["--memory-url", "ftp://x"], "no URL of a memory service"),
        (["--memory-url", "memory:8765"], "no URL of a memory service"),
        (["--memory-url", "http://"], "no URL of a memory service"),
        (["--log-level", "loud"], "no log level"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["operator", "--namespace", "x", *options])
    assert result.exit_code == 2
    assert words in result.output


def test_the_pages() -> None:
    registry = CollectorRegistry()
    Gauge("thing", "A thing.", registry=registry).set(3)
    state = {"healthy": True, "ready": False}

    async def go() -> list[tuple[int, str]]:
        runner, port = await serve(
            build_app(registry, lambda: state["healthy"], lambda: state["ready"]), "127.0.0.1", 0
        )
        found = []
        async with aiohttp.ClientSession() as session:
            for path in ("metrics", "healthz", "readyz", "other"):
                async with session.get(f"http://127.0.0.1:{port}/{path}") as answer:
                    found.append((answer.status, await answer.text()))
        await runner.cleanup()
        return found

    metrics, healthy, ready, other = asyncio.run(go())
    assert metrics[0] == 200
    assert "thing 3.0" in metrics[1]
    assert (healthy[0], ready[0], other[0]) == (200, 503, 404)


def test_pods_of_jobs_that_are_gone_on_lost_nodes_are_removed(at) -> None:
    def pod(name: str, owner: str, node: str, deleted: float | None) -> PodEntry:
        since = None if deleted is None else at(deleted)
        view = PodView(name, name, 0, PodPhase.RUNNING, node=node, deleting_since=since)
        return PodEntry("team", name, name, 1, job="gpt", owner=owner, view=view)

    pods = [
        pod("stuck", "gone", "lost", 0),
        pod("of-a-job", "there", "lost", 0),
        pod("not-deleted", "gone", "lost", None),
        pod("lately", "gone", "lost", 100),
        pod("on-a-good-node", "gone", "good", 0),
        pod("node-gone", "gone", "unknown", 0),
        pod("foreign", "", "lost", 0),
        pod("lost-lately", "gone", "just-lost", 0),
    ]
    nodes = {
        "lost": NodeView("lost", False, at(0)),
        "good": NodeView("good", True, at(0)),
        "just-lost": NodeView("just-lost", False, at(100)),
    }
    now = at(100 + LOST_SECONDS / 2)
    found = to_force(pods, frozenset({"there"}), nodes, now)
    assert [entry.name for entry in found] == ["stuck", "node-gone"]


def test_nodes_that_jobs_hold_on_the_nodes_own_evidence(job, at) -> None:
    def node(name: str, *, proven: bool) -> ExcludedNode:
        return ExcludedNode(node=name, since=at(0), until=at(9), proven=proven)

    excluded = [node("bad", proven=True), node("slow", proven=False)]
    running = job(TrainingJobStatus(phase=Phase.RUNNING, excluded_nodes=excluded))
    ended = job(TrainingJobStatus(phase=Phase.FAILED, excluded_nodes=[node("other", proven=True)]))
    assert held_nodes([running, ended]) == {"bad"}


def test_a_lease_is_written_and_read(at) -> None:
    stored = {
        "metadata": {"resourceVersion": "7"},
        "spec": {
            "holderIdentity": "a",
            "leaseDurationSeconds": 10,
            "leaseTransitions": 3,
            "acquireTime": "2026-01-01T00:00:01.500000Z",
            "renewTime": "2026-01-01T00:00:09.000000Z",
        },
    }
    lease = parse(stored)
    assert (lease.holder, lease.version, lease.transitions, lease.acquired_at) == ("a", "7", 3, at(1.5))
    again = manifest_of(lease, "ns")
    assert again["spec"] == stored["spec"]
    assert again["metadata"] == {"name": "sternpost-operator", "namespace": "ns", "resourceVersion": "7"}
    assert parse({"spec": {"holderIdentity": None}}).holder == "", "whatever is missing counts as free"
    assert parse({}).duration_seconds == 10


def test_log_levels() -> None:
    with pytest.raises(ValueError, match="give debug, info, warning or error"):
        configure_logging("loud")
    root, handlers = logging.getLogger(), list(logging.getLogger().handlers)
    try:
        configure_logging("info")
        assert logging.getLogger("kopf").level == logging.WARNING
    finally:
        root.handlers[:] = handlers


def test_outside_a_pod_the_namespace_must_be_given() -> None:
    with pytest.raises(ValueError, match="STERNPOST_NAMESPACE"):
        _own_namespace()
