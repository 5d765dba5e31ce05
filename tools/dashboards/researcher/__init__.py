"""For whoever trains: one job, how far it is, how well it uses its time, and what happened to it."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from tools.dashboards.frame import RESEARCHER_UID, Annotation, dashboard, variable
from tools.dashboards.researcher import checkpoints, overview, progress, recovery, sidecars, steps
from tools.dashboards.researcher.selectors import JOB


def build() -> Dashboard:
    """The dashboard, made anew."""
    return dashboard(
        RESEARCHER_UID,
        "Sternpost / Training job",
        "Progress, loss, goodput, step time by worker, checkpoints and recoveries of one TrainingJob.",
        span="now-3h",
        refresh="10s",
        variables=[
            variable(
                "namespace",
                "Namespace",
                "label_values(sternpost_job_phase, namespace)",
                "Namespace of the TrainingJob.",
            ),
            variable(
                "job",
                "Job",
                'label_values(sternpost_job_phase{namespace="$namespace"}, job_name)',
                "Name of the TrainingJob.",
            ),
            variable(
                "worker",
                "Worker",
                'label_values(sternpost_attempt_info{namespace="$namespace",job_name="$job"}, pod)',
                "Pods to show where a panel is about workers; numbers of the whole job are not filtered.",
                several=True,
            ),
        ],
        rows=[
            *overview.rows(),
            *progress.rows(),
            *steps.rows(),
            *checkpoints.rows(),
            *recovery.rows(),
            *sidecars.rows(),
        ],
        annotations=[
            Annotation(
                "Anomalies",
                f"max by (kind, node, worker) (sternpost_job_anomaly{JOB})",
                "orange",
                title="Anomaly: {{kind}}",
                text="node {{node}}, worker {{worker}}",
            ),
            Annotation(
                "Recoveries",
                f"max(sternpost_job_recovery_started_timestamp_seconds{JOB}) > 0",
                "red",
                title="Recovery",
                text="From the failure until the first step after it",
            ),
            Annotation(
                "Attempts",
                # The value is a time: one event for each attempt, at its first step.
                f"1000 * max by (attempt) (sternpost_first_step_timestamp_seconds{JOB}"
                f" * on (namespace, pod, rank) group_left (attempt) sternpost_attempt_info{JOB})",
                "blue",
                title="Attempt {{attempt}}",
                text="First step of the attempt",
                value_is_time=True,
            ),
        ],
    )
