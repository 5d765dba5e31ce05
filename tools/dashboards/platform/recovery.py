"""What went wrong, and how long it took to go on."""

from __future__ import annotations

from tools.dashboards.frame import Row
from tools.dashboards.look import BAD, GOOD, THIRD, WARN, thresholds
from tools.dashboards.panels import bars, graph
from tools.dashboards.platform.selectors import EACH, JOBS, RATE, SPAN
from tools.dashboards.query import Query, now


def _quantile(share: float, by: str = "stage") -> str:
    window = f"sum by (le, {by}) (increase(sternpost_operator_recovery_stage_seconds_bucket[{SPAN}]))"
    return f"histogram_quantile({share:g}, {window})"


def rows() -> list[Row]:
    """Causes, rungs, stages."""
    return [
        Row(
            "Recovery",
            [
                graph(
                    "Recoveries by cause",
                    "Recoveries begun, by what was found to be the cause. NodeLost and NodeUnhealthy are the platform's; "
                    "RankFailed mostly the user's program.",
                    "short",
                    Query(f"sum by (cause) (increase(sternpost_operator_recoveries_total[{RATE}]))", "{{cause}}"),
                    size=THIRD,
                    stacked=True,
                    legend=("sum",),
                ),
                graph(
                    "Recoveries by rung",
                    "How much was restarted: ranks in place, Pods, or the whole job. The lower the rung, the quicker.",
                    "short",
                    Query(f"sum by (rung) (increase(sternpost_operator_recoveries_total[{RATE}]))", "{{rung}}"),
                    size=THIRD,
                    stacked=True,
                    legend=("sum",),
                ),
                graph(
                    "Time in recovery",
                    "Since when each job that is recovering now has been at it. A line that keeps climbing is stuck.",
                    "s",
                    Query(
                        f"time() - max {EACH} (sternpost_job_recovery_started_timestamp_seconds{JOBS})",
                        "{{namespace}}/{{job_name}}",
                    ),
                    size=THIRD,
                    steps=thresholds(GOOD, (300, WARN), (900, BAD)),
                    legend=("max",),
                ),
                bars(
                    "Recovery time by stage, median",
                    "Half of the recoveries in the time shown were through with the stage in less than this. "
                    "Stages: detect, decide, delete, create, ready, terminate, start, restore, first_step.",
                    "s",
                    now(f"{_quantile(0.5)} >= 0", "{{stage}}"),
                    steps=thresholds(GOOD, (30, WARN), (120, BAD)),
                ),
                bars(
                    "Recovery time by stage, p95",
                    "One recovery in twenty took longer in the stage than this.",
                    "s",
                    now(f"{_quantile(0.95)} >= 0", "{{stage}}"),
                    steps=thresholds(GOOD, (60, WARN), (300, BAD)),
                ),
                graph(
                    "Mean recovery time by stage",
                    "Stacked, so that the height is the mean time from the failure to the first step, over the last hour.",
                    "s",
                    Query(
                        "sum by (stage) (increase(sternpost_operator_recovery_stage_seconds_sum[1h]))"
                        " / sum by (stage) (increase(sternpost_operator_recovery_stage_seconds_count[1h]))",
                        "{{stage}}",
                    ),
                    stacked=True,
                ),
                graph(
                    "Lost steps",
                    "Steps that were repeated after recoveries. Restores from memory lose few; restores from storage lose "
                    "what came after the last save that was committed.",
                    "short",
                    Query(f"sum(increase(sternpost_operator_lost_steps_total[{RATE}]))", "steps"),
                    legend=("sum",),
                ),
            ],
        )
    ]
