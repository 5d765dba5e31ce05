"""How the training is going."""

from __future__ import annotations

from tools.dashboards.frame import Row
from tools.dashboards.look import BAD, GOOD, THIRD, WARN, thresholds
from tools.dashboards.panels import graph
from tools.dashboards.query import Query
from tools.dashboards.researcher.selectors import JOB, RATE


def rows() -> list[Row]:
    """Steps, loss, gradient, samples, goodput."""
    return [
        Row(
            "Progress",
            [
                graph(
                    "Step",
                    "Last step completed, and the newest one that is safe in the storage. A step back is a recovery.",
                    "locale",
                    Query(f"max(sternpost_step{JOB})", "completed"),
                    Query(f"max(sternpost_checkpoint_committed_step{JOB})", "committed"),
                    size=THIRD,
                    legend=("lastNotNull",),
                ),
                graph(
                    "Loss",
                    "As reported; mean over the ranks, and the highest of a rank. A curve that jumps at a recovery, other than "
                    "back to where it was, is worth a report.",
                    "none",
                    Query(f"avg(sternpost_loss{JOB})", "mean"),
                    Query(f"max(sternpost_loss{JOB})", "highest"),
                    size=THIRD,
                    low=None,
                    legend=("lastNotNull", "min"),
                ),
                graph(
                    "Norm of the gradient",
                    "As reported by `report(grad_norm=…)`; highest of the ranks.",
                    "none",
                    Query(f"max(sternpost_grad_norm{JOB})", "gradient"),
                    size=THIRD,
                ),
                graph(
                    "Steps per second",
                    "Mean over the ranks; repeated steps count, too.",
                    "ops",
                    Query(f"avg(rate(sternpost_step_seconds_count{JOB}[{RATE}]))", "steps"),
                    size=THIRD,
                    legend=("lastNotNull", "mean"),
                ),
                graph(
                    "Samples per second",
                    "All ranks together, as reported by `report(samples=…)`.",
                    "short",
                    Query(f"sum(rate(sternpost_samples_total{JOB}[{RATE}]))", "samples"),
                    size=THIRD,
                    legend=("lastNotNull", "mean"),
                ),
                graph(
                    "Goodput",
                    "Share of the time since the job's start that went into steps which count.",
                    "percentunit",
                    Query(f"max(sternpost_job_goodput_ratio{JOB})", "goodput"),
                    size=THIRD,
                    high=1,
                    steps=thresholds(BAD, (0.5, WARN), (0.9, GOOD)),
                    legend=("lastNotNull", "min"),
                ),
            ],
        )
    ]
