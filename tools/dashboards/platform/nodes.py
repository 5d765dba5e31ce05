"""The nodes that jobs avoid."""

from __future__ import annotations

from tools.dashboards.frame import Row
from tools.dashboards.look import BAD, GOOD, INFO, THIRD, WARN, thresholds
from tools.dashboards.panels import bars, graph
from tools.dashboards.platform.selectors import RATE, SPAN
from tools.dashboards.query import Query, now


def rows() -> list[Row]:
    """Exclusions, cordons, repeat offenders."""
    return [
        Row(
            "Nodes",
            [
                graph(
                    "Excluded and cordoned nodes",
                    "Excluded: at least one job avoids it. Cordoned: nobody gets new Pods there, which takes evidence from the "
                    "node itself and the option `nodeExclusion.enabled`.",
                    "short",
                    Query("max(sternpost_operator_nodes_excluded)", "excluded"),
                    Query("max(sternpost_operator_nodes_cordoned)", "cordoned"),
                    size=THIRD,
                ),
                bars(
                    "Excluded now, by node",
                    "How many jobs avoid the node at present. Two jobs that do not know of each other are strong evidence.",
                    "short",
                    now("topk(15, max by (node) (sternpost_operator_node_exclusions) > 0)", "{{node}}"),
                    steps=thresholds(INFO, (2, WARN), (3, BAD)),
                    size=THIRD,
                ),
                bars(
                    "Repeat offenders",
                    "Time for which jobs have avoided the node, summed up over the jobs and the time shown. Few nodes cause "
                    "most of it: have those repaired.",
                    "s",
                    now(
                        f"topk(15, 60 * sum_over_time(max by (node) (sternpost_operator_node_exclusions)[{SPAN}:1m]) > 0)",
                        "{{node}}",
                    ),
                    steps=thresholds(INFO, (6 * 3600, WARN), (24 * 3600, BAD)),
                    size=THIRD,
                ),
                bars(
                    "Cordoned now",
                    "Nodes that the operator keeps cordoned. They are uncordoned when the exclusion ends; other cordons are "
                    "not touched.",
                    "short",
                    now(
                        'max by (node) (sternpost_operator_node_cordoned) or label_replace(vector(0), "node", "none", "", "")',
                        "{{node}}",
                    ),
                    steps=thresholds(GOOD, (1, BAD)),
                    size=THIRD,
                ),
                graph(
                    "Cordons by reason",
                    "Nodes cordoned, by the evidence.",
                    "short",
                    Query(
                        f"sum by (reason) (increase(sternpost_operator_node_cordons_total[{RATE}])) or vector(0)",
                        "{{reason}}",
                    ),
                    size=THIRD,
                    legend=("sum",),
                ),
                graph(
                    "Drains by result",
                    "Nodes drained of other Pods (only with `nodeExclusion.drain`). blocked: a PodDisruptionBudget did not "
                    "allow it; error: the API server did not let it.",
                    "short",
                    Query(
                        f"sum by (result) (increase(sternpost_operator_drains_total[{RATE}])) or vector(0)",
                        "{{result}}",
                    ),
                    size=THIRD,
                    legend=("sum",),
                ),
            ],
        )
    ]
