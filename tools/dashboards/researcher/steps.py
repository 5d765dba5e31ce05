"""Where the time of a step goes, and which worker holds up the others."""

from __future__ import annotations

from tools.dashboards.frame import Row
from tools.dashboards.look import BAD, FULL, GOOD, THIRD, WARN, thresholds
from tools.dashboards.panels import graph, heat
from tools.dashboards.query import Query
from tools.dashboards.researcher.selectors import JOB, WORKER, mean


def rows() -> list[Row]:
    """Heat maps by worker, compute against wait, stragglers."""
    step = mean("sternpost_step_seconds", JOB)
    compute = mean("sternpost_compute_seconds", JOB)
    return [
        Row(
            "Step time",
            [
                heat(
                    "Step time by worker",
                    "A line for each Pod, its colour the mean duration of a step (of its slowest rank). All wait for the slowest "
                    "worker, so that all lines change together: who it is, the next panel shows.",
                    "s",
                    Query(f"max by (pod) ({mean('sternpost_step_seconds', WORKER)})", "{{pod}}"),
                    scheme="Oranges",
                    size=FULL,
                ),
                heat(
                    "Compute time by worker",
                    "The same without the wait for other ranks: a slow node, and only that, stands out.",
                    "s",
                    Query(f"max by (pod) ({mean('sternpost_compute_seconds', WORKER)})", "{{pod}}"),
                    scheme="Reds",
                    size=FULL,
                ),
                graph(
                    "Compute and wait",
                    "Mean step of all ranks: computing, and waiting for other ranks. Much wait on all: the network, "
                    "or one slow worker.",
                    "s",
                    Query(f"avg({compute})", "compute"),
                    Query(f"avg({step}) - avg({compute})", "wait"),
                    size=THIRD,
                    stacked=True,
                ),
                graph(
                    "Slowest worker against the median",
                    "Compute time of the Pod divided by the median of all. Eagle-eye watches it, too; a worker that stays above "
                    "1.5 deserves a look.",
                    "none",
                    Query(
                        f"max by (pod) ({mean('sternpost_compute_seconds', WORKER)}) / scalar(quantile(0.5, {compute}))",
                        "{{pod}}",
                    ),
                    size=THIRD,
                    steps=thresholds(GOOD, (1.5, WARN), (2, BAD)),
                ),
                graph(
                    "Ranks in a collective",
                    "Share of the ranks that wait for others at the moment. At 100 % for long: the job hangs.",
                    "percentunit",
                    Query(f"avg(sternpost_in_collective{JOB})", "waiting"),
                    size=THIRD,
                    high=1,
                    legend=("mean", "lastNotNull"),
                ),
            ],
        )
    ]
