"""The jobs."""

from __future__ import annotations

from tools.dashboards.frame import RESEARCHER_UID, Row
from tools.dashboards.look import BAD, FULL, GOOD, INFO, WARN, thresholds
from tools.dashboards.panels import Column, Labels, PanelBuilder, graph, grid
from tools.dashboards.platform.selectors import EACH, JOBS
from tools.dashboards.query import Query, now

_JOB_LINK = (
    "Open this job",
    (
        f"/d/{RESEARCHER_UID}?${{datasource:queryparam}}&var-namespace=${{__data.fields.Namespace}}"
        "&var-job=${__data.fields.Job}&${__url_time_range}"
    ),
)


def rows() -> list[Row]:
    """Phases, and a table with a line for each job."""
    return [
        Row(
            "Jobs",
            [
                graph(
                    "Jobs by phase",
                    "How many jobs are in each phase, in all namespaces. Many that stay Pending: nodes are missing. "
                    "Many Recovering at once: look for a common cause among the nodes below.",
                    "short",
                    Query("max by (phase) (sternpost_operator_jobs)", "{{phase}}"),
                    stacked=True,
                ),
                graph(
                    "Workers",
                    "Workers that the jobs want, whose Pods are ready, and whose ranks run. A gap that stays is capacity "
                    "that is missing, or a gang that waits.",
                    "short",
                    Query(
                        f"sum by (state) (max by (namespace, job_name, state) (sternpost_job_workers{JOBS}))",
                        "{{state}}",
                    ),
                ),
                graph(
                    "Goodput",
                    "Share of each job's time that went into steps which count: without starts, recoveries and repeated steps.",
                    "percentunit",
                    Query(f"max {EACH} (sternpost_job_goodput_ratio{JOBS})", "{{namespace}}/{{job_name}}"),
                    high=1,
                    steps=thresholds(BAD, (0.5, WARN), (0.9, GOOD)),
                    legend=("lastNotNull", "min"),
                ),
                graph(
                    "Retry budget used",
                    "Of the rung of the recovery ladder that is nearest to its end. At 100 % the next failure of that kind "
                    "fails the job.",
                    "percentunit",
                    Query(f"max {EACH} (sternpost_job_budget_used_ratio{JOBS})", "{{namespace}}/{{job_name}}"),
                    high=1,
                    steps=thresholds(GOOD, (0.8, WARN), (1, BAD)),
                ),
                _table(),
            ],
        )
    ]


def _table() -> PanelBuilder:
    def newest(metric: str) -> Query:
        return now(f"max {EACH} ({metric}{JOBS})")

    return grid(
        "All jobs",
        "A line for each job; its name leads to the dashboard of the job.",
        Labels({"namespace": "Namespace", "job_name": "Job", "phase": "Phase"}, {"job_name": _JOB_LINK}),
        Column("Active", now(f"max by (namespace, job_name, phase) (sternpost_job_phase{JOBS} == 1)")),
        Column("Step", newest("sternpost_job_step")),
        Column(
            "Goodput",
            newest("sternpost_job_goodput_ratio"),
            "percentunit",
            thresholds(BAD, (0.5, WARN), (0.9, GOOD)),
            1,
        ),
        Column("Attempt", newest("sternpost_job_attempt")),
        Column("Restarts", newest("sternpost_job_restarts"), steps=thresholds(GOOD, (1, INFO), (10, WARN))),
        Column("Lost steps", newest("sternpost_job_lost_steps")),
        Column(
            "Budget used",
            now(f"max {EACH} (sternpost_job_budget_used_ratio{JOBS})"),
            "percentunit",
            thresholds(GOOD, (0.8, WARN), (1, BAD)),
            0,
        ),
        Column(
            "Since checkpoint",
            now(f"time() - max {EACH} (sternpost_job_checkpoint_timestamp_seconds{JOBS})"),
            "s",
            thresholds(GOOD, (1800, WARN), (3600, BAD)),
            0,
        ),
        size=FULL,
    )
