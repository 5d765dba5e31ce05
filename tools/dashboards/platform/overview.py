"""What one looks at first."""

from __future__ import annotations

from tools.dashboards.frame import Row
from tools.dashboards.look import BAD, GOOD, WARN, thresholds
from tools.dashboards.panels import tile
from tools.dashboards.platform.selectors import EACH, JOBS, SPAN
from tools.dashboards.query import Query, now


def rows() -> list[Row]:
    """One row of single numbers."""
    return [
        Row(
            "Now",
            [
                tile(
                    "Running jobs",
                    "Jobs whose ranks run, in the chosen namespaces.",
                    "short",
                    Query(
                        f'sum(max {EACH} (sternpost_job_phase{{namespace=~"$namespace",phase="Running"}})) or vector(0)'
                    ),
                ),
                tile(
                    "Recovering jobs",
                    "Jobs between the decision on a failure and the first step after it.",
                    "short",
                    Query(f"count(max {EACH} (sternpost_job_recovery_started_timestamp_seconds{JOBS})) or vector(0)"),
                    steps=thresholds(GOOD, (1, WARN)),
                ),
                tile(
                    "Recoveries",
                    "Recoveries of all jobs in the time shown.",
                    "short",
                    now(f"sum(increase(sternpost_operator_recoveries_total[{SPAN}]))"),
                    decimals=0,
                ),
                tile(
                    "Lost steps",
                    "Steps that had to be repeated, all jobs, in the time shown. A save more often makes it smaller.",
                    "short",
                    now(f"sum(increase(sternpost_operator_lost_steps_total[{SPAN}]))"),
                    decimals=0,
                ),
                tile(
                    "Excluded nodes",
                    "Nodes that at least one job avoids at present.",
                    "short",
                    Query("max(sternpost_operator_nodes_excluded)"),
                    steps=thresholds(GOOD, (1, WARN)),
                ),
                tile(
                    "Cordoned nodes",
                    "Nodes that the operator has cordoned, for everybody: their hardware was reported to be bad.",
                    "short",
                    Query("max(sternpost_operator_nodes_cordoned)"),
                    steps=thresholds(GOOD, (1, BAD)),
                ),
                tile(
                    "Leaders",
                    "Replicas of the operator that act. One is right; none means that nothing is recovered.",
                    "short",
                    Query("sum(sternpost_operator_leader) or vector(0)"),
                    steps=thresholds(BAD, (1, GOOD), (2, BAD)),
                ),
                tile(
                    "Incidents unsent",
                    "Incidents that the memory service has not acknowledged. They wait in the status of their jobs.",
                    "short",
                    Query("max(sternpost_operator_incidents_unsent)"),
                    steps=thresholds(GOOD, (1, WARN), (20, BAD)),
                ),
            ],
        )
    ]
