"""The operator's use of the Kubernetes API."""

from __future__ import annotations

from tools.dashboards.frame import Row
from tools.dashboards.look import BAD, GOOD, WARN, thresholds
from tools.dashboards.panels import graph
from tools.dashboards.platform.selectors import RATE
from tools.dashboards.query import Query, quantiles


def rows() -> list[Row]:
    """Requests, errors, latency."""
    return [
        Row(
            "Kubernetes API",
            [
                graph(
                    "Requests by verb and resource",
                    "Requests of the operator. Without recoveries at most one a second, beside watches.",
                    "reqps",
                    Query(
                        f"sum by (verb, resource) (rate(sternpost_operator_api_requests_total[{RATE}]))",
                        "{{verb}} {{resource}}",
                    ),
                    stacked=True,
                ),
                graph(
                    "Errors by reason",
                    "Requests that failed. conflict is part of the work; refused mostly is a missing role; server, timeout and "
                    "connection an API server in trouble.",
                    "reqps",
                    Query(
                        f"sum by (verb, resource, reason) (rate(sternpost_operator_api_errors_total[{RATE}])) or vector(0)",
                        "{{verb}} {{resource}} {{reason}}",
                    ),
                ),
                graph(
                    "Responses by code",
                    "HTTP status codes. 409 and 404 are part of the work.",
                    "reqps",
                    Query(f"sum by (code) (rate(sternpost_operator_api_requests_total[{RATE}]))", "{{code}}"),
                    stacked=True,
                ),
                graph(
                    "Latency by verb",
                    "95 % of the requests were answered within this; watches are not counted.",
                    "s",
                    *quantiles("sternpost_operator_api_request_seconds", "verb", '{verb!="watch"}', RATE, 0.5, 0.95),
                    steps=thresholds(GOOD, (1, WARN), (5, BAD)),
                ),
            ],
        )
    ]
