"""For whoever runs the platform: all jobs, their recoveries, the nodes, the operator and what it depends on."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from tools.dashboards.frame import PLATFORM_UID, Annotation, dashboard, variable
from tools.dashboards.platform import api, jobs, memory, nodes, operator, overview, recovery


def build() -> Dashboard:
    """The dashboard, made anew."""
    return dashboard(
        PLATFORM_UID,
        "Sternpost / Platform",
        "Jobs, queue, recoveries, nodes, the operator, the API server and the memory service.",
        span="now-6h",
        refresh="30s",
        variables=[
            variable(
                "namespace",
                "Namespace",
                "label_values(sternpost_job_phase, namespace)",
                "Of the jobs; what belongs to the operator as a whole is not filtered.",
                several=True,
            )
        ],
        rows=[
            *overview.rows(),
            *jobs.rows(),
            *recovery.rows(),
            *nodes.rows(),
            *operator.rows(),
            *api.rows(),
            *memory.rows(),
        ],
        annotations=[
            Annotation(
                "New leader",
                "sum(increase(sternpost_operator_leader_transitions_total[1m])) > 0",
                "purple",
                title="A new leader took over",
                text="",
            )
        ],
    )
