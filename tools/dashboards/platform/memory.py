"""The memory service and its store."""

from __future__ import annotations

from tools.dashboards.frame import Row
from tools.dashboards.look import BAD, GOOD, HALF, THIRD, WARN, thresholds
from tools.dashboards.panels import graph, timeline
from tools.dashboards.platform.selectors import RATE
from tools.dashboards.query import Query, quantiles
from tools.dashboards.states import DOWN_OR_UP


def rows() -> list[Row]:
    """What arrives, what waits, how quickly it answers."""
    return [
        Row(
            "Memory service",
            [
                graph(
                    "Incidents by result",
                    "Incidents that the operator sent. Failed ones are sent again; none is lost.",
                    "short",
                    Query(f"sum by (result) (increase(sternpost_operator_incidents_total[{RATE}]))", "{{result}}"),
                    size=THIRD,
                    legend=("sum",),
                ),
                graph(
                    "Incidents unsent",
                    "Incidents that wait in the status of their jobs until the memory service takes them.",
                    "short",
                    Query("max(sternpost_operator_incidents_unsent)", "unsent"),
                    size=THIRD,
                    steps=thresholds(GOOD, (1, WARN), (20, BAD)),
                ),
                graph(
                    "Observations",
                    "Acknowledged: written durably. Consolidated: part of a topic document, and so to be found.",
                    "ops",
                    Query(f"sum(rate(sternpost_memory_observations_total[{RATE}]))", "acknowledged"),
                    Query(f"sum(rate(sternpost_memory_consolidated_observations_total[{RATE}]))", "consolidated"),
                    Query(f"sum(rate(sternpost_memory_replayed_writes_total[{RATE}]))", "sent again"),
                    size=THIRD,
                ),
                graph(
                    "Buffer",
                    "Observations that no topic document has yet. One that only grows: consolidation does not get on.",
                    "short",
                    Query("max(sternpost_memory_buffered_observations)", "buffered"),
                    size=THIRD,
                    steps=thresholds(GOOD, (1000, WARN), (10000, BAD)),
                ),
                graph(
                    "Consolidations by result",
                    "conflict is planned again; failed: the store could not be used.",
                    "ops",
                    Query(f"sum by (result) (rate(sternpost_memory_consolidations_total[{RATE}]))", "{{result}}"),
                    size=THIRD,
                ),
                graph(
                    "Duration of a consolidation",
                    "From planning to the commit of one batch of observations.",
                    "s",
                    *quantiles("sternpost_memory_consolidation_seconds", "", "", RATE, 0.5, 0.95),
                    size=THIRD,
                ),
                graph(
                    "Requests by status",
                    "HTTP requests that the memory service answered.",
                    "reqps",
                    Query(f"sum by (status) (rate(sternpost_memory_requests_total[{RATE}]))", "{{status}}"),
                    size=THIRD,
                    stacked=True,
                ),
                graph(
                    "Latency by route",
                    "95 % of the requests to the route were answered within this.",
                    "s",
                    *quantiles("sternpost_memory_request_seconds", "route", "", RATE, 0.95),
                    size=THIRD,
                    steps=thresholds(GOOD, (0.25, WARN), (1, BAD)),
                ),
                graph(
                    "Store errors",
                    "Requests that failed because of the store, Redis or SQLite.",
                    "reqps",
                    Query(
                        f"sum by (error) (rate(sternpost_memory_store_errors_total[{RATE}])) or vector(0)", "{{error}}"
                    ),
                    size=THIRD,
                    steps=thresholds(GOOD, (0.01, BAD)),
                ),
                timeline(
                    "Store",
                    "Whether the store answered when it was last asked.",
                    Query("min by (pod) (sternpost_memory_store_up)", "{{pod}}"),
                    states=DOWN_OR_UP,
                    first=0,
                    size=HALF,
                ),
                graph(
                    "Tokens checked",
                    "Service account tokens that the API server was asked about. refused: a caller without the right, or with a "
                    "token for another audience; unavailable: the API server did not answer, and the caller tries again.",
                    "ops",
                    Query(f"sum by (result) (rate(sternpost_memory_token_reviews_total[{RATE}]))", "{{result}}"),
                    size=HALF,
                ),
            ],
        )
    ]
