"""What happened to the job, and how it came back."""

from __future__ import annotations

from tools.dashboards.frame import Row
from tools.dashboards.look import BAD, GOOD, INFO, THIRD, WARN, thresholds
from tools.dashboards.panels import Column, Labels, bars, graph, grid, timeline
from tools.dashboards.query import Query, as_number, now
from tools.dashboards.researcher.selectors import JOB, WORKER
from tools.dashboards.states import RESTORE_SOURCES

_SOURCE = 'sternpost_restore_source{namespace="$namespace",job_name="$job",pod=~"$worker",@}'


def rows() -> list[Row]:
    """Attempts, budgets, restores, anomalies."""
    return [
        Row(
            "Recovery",
            [
                graph(
                    "Attempt and restarts",
                    "Each recovery and each resume begins an attempt; restarts are the recoveries among them.",
                    "short",
                    Query(f"max(sternpost_job_attempt{JOB})", "attempt"),
                    Query(f"max(sternpost_job_restarts{JOB})", "restarts"),
                    size=THIRD,
                    legend=("lastNotNull",),
                ),
                graph(
                    "Lost steps",
                    "Steps repeated after recoveries, since the job's start.",
                    "short",
                    Query(f"max(sternpost_job_lost_steps{JOB})", "lost"),
                    size=THIRD,
                    legend=("lastNotNull",),
                ),
                bars(
                    "Retry budget used",
                    "By rung of the recovery ladder. At 100 % the next failure of that kind fails the job; "
                    "`spec.recovery.budgets` gives more.",
                    "percentunit",
                    now(f"max by (rung) (sternpost_job_budget_used_ratio{JOB})", "{{rung}}"),
                    steps=thresholds(GOOD, (0.8, WARN), (1, BAD)),
                    size=THIRD,
                ),
                timeline(
                    "Restored from",
                    "Where each Pod's ranks found their state. Shared memory is quick and loses nearly nothing; none: the "
                    "training began at step 0.",
                    Query(as_number(_SOURCE, "source", [state.text for state in RESTORE_SOURCES], by="pod"), "{{pod}}"),
                    states=RESTORE_SOURCES,
                    size=THIRD,
                ),
                graph(
                    "Restore time",
                    "How long the last restore of each Pod took, of its slowest rank.",
                    "s",
                    Query(f"max by (pod) (sternpost_restore_seconds{WORKER})", "{{pod}}"),
                    size=THIRD,
                    steps=thresholds(GOOD, (10, WARN), (60, BAD)),
                ),
                graph(
                    "Restored step",
                    "The step that the training went on from.",
                    "locale",
                    Query(f"max(sternpost_restored_step{JOB})", "restored"),
                    size=THIRD,
                    legend=("lastNotNull",),
                ),
                grid(
                    "Anomalies in the time shown",
                    "What eagle-eye saw: `kubectl get anomalies` has the evidence in words. They are marks in the graphs, too.",
                    Labels({"kind": "Kind", "node": "Node", "worker": "Worker"}),
                    Column(
                        "Times seen",
                        now(f"max by (kind, node, worker) (count_over_time(sternpost_job_anomaly{JOB}[$__range]))"),
                        steps=thresholds(INFO),
                    ),
                ),
            ],
        )
    ]
