"""Every panel of the dashboards shows something of a run in which a node dies and a rank hangs."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from local_job import JOBS, Job, ours
from observed_run import OperatorPage, observe
from panel_queries import Asked, Window, load, queries, unanswered
from prometheus_server import Server, prometheus

NAMESPACE = "default"

ON_A_CLUSTER_ONLY = (
    "sternpost_operator_leader",
    "sternpost_operator_reconcile",
    "sternpost_operator_queue",
    "sternpost_operator_api_",
    "sternpost_operator_incidents_total",
    "sternpost_operator_node_cordon",
    "sternpost_operator_nodes_cordoned",
    "sternpost_memory_token_reviews",
)
"""What the operator measures of its own work: `sternpost run` has no leader, no queue and no API server;
its memory service has no API server to ask about tokens.

The same check runs without this exception in tests/cluster/test_dashboards.py.
"""


# It takes a minute; where others use the same processors, importing torch three times takes many.
pytestmark = pytest.mark.timeout(1000)


def local(asked: Asked) -> bool:
    return not any(name in asked.expr for name in ON_A_CLUSTER_ONLY)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Window]]:
    """A Prometheus that has watched a whole run, and the time up to which both workers trained."""
    folder = tmp_path_factory.mktemp("observed")
    job = Job(
        folder,
        name="watched",
        command=["python3", str(JOBS / "reporting.py")],
        spec={
            "spares": 1,
            "eagleEye": {"intervalSeconds": 0.5, "hang": {"factor": 5, "minSeconds": 5, "initSeconds": 60}},
        },
    )
    page = OperatorPage(NAMESPACE, job.state_dir / "objects")
    with prometheus(folder / "prometheus") as server, page.serve() as address:
        start = time.time()
        process = job.start(
            *("--inject", "kill:worker=1,step=30", "--inject", "hang:worker=0,step=70", "--timeout", "900"), nodes=3
        )
        try:
            observe(job, process, server, page, address)
        finally:
            process.terminate()
            process.wait(60)
        assert process.returncode == 0, job.output
        left = ours(job.state_dir)
        assert not left, f"left behind: {[each.pid for each in left]}"
        assert [each["cause"] for each in job.report["attempts"]] == ["NodeLost", "Hang"], job.output
        yield server, Window(start, server.client.last_time("count(sternpost_step) == 2", start), rate_interval="10s")


def test_every_panel_annotation_and_variable_answers(seen: tuple[Server, Window]) -> None:
    server, window = seen
    chosen = {"namespace": NAMESPACE, "job": "watched"}
    problems = unanswered(load(), server.client, window, chosen, wanted=local)
    assert not problems, "\n".join(problems)


def test_what_only_a_cluster_has_is_at_least_understood(seen: tuple[Server, Window]) -> None:
    server, window = seen
    asked = [each for each in queries(load()) if not local(each)]
    assert asked
    problems = unanswered(load(), server.client, window, {}, wanted=lambda each: not local(each))
    misunderstood = [line for line in problems if "parse error" in line or "execution" in line]
    assert not misunderstood, "\n".join(misunderstood)


def test_numbers_are_those_of_the_run(seen: tuple[Server, Window]) -> None:
    """A query that answers may still answer wrongly."""
    server, window = seen

    def number(expr: str) -> float:
        (series,) = server.client.instant(expr, window.end)
        return float(series["value"][1])

    span = f"{int(window.end - window.start)}s"
    assert number(f"sum(changes(sternpost_job_attempt[{span}]))") >= 2
    assert number("max(sternpost_job_restarts)") == 2
    assert number("sternpost_operator_nodes_excluded") == 1
    assert number("max(sternpost_job_step)") <= number("max(sternpost_step)") <= 140
    assert number("count(count by (pod) (sternpost_step))") == 2
