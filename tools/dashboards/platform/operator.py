"""The operator's own work."""

from __future__ import annotations

from tools.dashboards.frame import Row
from tools.dashboards.look import BAD, GOOD, THIRD, WARN, thresholds
from tools.dashboards.panels import graph, timeline
from tools.dashboards.platform.selectors import RATE
from tools.dashboards.query import Query, quantiles
from tools.dashboards.states import PASSIVE_OR_LEADER


def rows() -> list[Row]:
    """Leader, reconciles, queue."""
    return [
        Row(
            "Operator",
            [
                timeline(
                    "Leader",
                    "Which replica acts. A change within 15 s is a takeover as it should be; a gap is time without recovery.",
                    Query("max by (pod) (sternpost_operator_leader)", "{{pod}}"),
                    states=PASSIVE_OR_LEADER,
                    first=0,
                    size=THIRD,
                ),
                graph(
                    "Leader transitions",
                    "Takeovers. More than one or two after an upgrade: the API server is slow, or a replica is starved.",
                    "short",
                    Query(f"sum(increase(sternpost_operator_leader_transitions_total[{RATE}]))", "transitions"),
                    size=THIRD,
                    legend=("sum",),
                ),
                graph(
                    "Reconciles by result",
                    "conflict: somebody else wrote the object, done again at once. no_answer: the API server did not answer. "
                    "error: a bug, please report it with the log.",
                    "ops",
                    Query(f"sum by (result) (rate(sternpost_operator_reconciles_total[{RATE}]))", "{{result}}"),
                    size=THIRD,
                    stacked=True,
                ),
                graph(
                    "Queue",
                    "Jobs that wait for their reconcile. It should be empty nearly always.",
                    "short",
                    Query("max(sternpost_operator_queue_depth)", "waiting"),
                    size=THIRD,
                    steps=thresholds(GOOD, (50, WARN), (500, BAD)),
                ),
                graph(
                    "Wait in the queue",
                    "From the wake-up of a job to the start of its reconcile.",
                    "s",
                    *quantiles("sternpost_operator_queue_wait_seconds", "", "", RATE, 0.5, 0.95, 0.99),
                    size=THIRD,
                    steps=thresholds(GOOD, (1, WARN), (10, BAD)),
                ),
                graph(
                    "Duration of a reconcile",
                    "Observe, decide, write the status, act. Nearly all of it is waiting for the API server.",
                    "s",
                    *quantiles("sternpost_operator_reconcile_seconds", "", "", RATE, 0.5, 0.95, 0.99),
                    size=THIRD,
                    steps=thresholds(GOOD, (1, WARN), (10, BAD)),
                ),
            ],
        )
    ]
