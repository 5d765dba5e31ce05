"""Whether what watches and saves the job works itself."""

from __future__ import annotations

from tools.dashboards.frame import Row
from tools.dashboards.look import BAD, GOOD, HALF, THIRD, WARN, thresholds
from tools.dashboards.panels import graph, timeline
from tools.dashboards.query import Query
from tools.dashboards.researcher.selectors import JOB, RATE, WORKER
from tools.dashboards.states import DOWN_OR_UP


def rows() -> list[Row]:
    """Targets, eagle-eye's own counters, workers."""
    return [
        Row(
            "Workers and sidecars",
            [
                timeline(
                    "Metrics pages",
                    "Whether Prometheus reaches the pages of each Pod: its trainer and both sidecars. A trainer without "
                    "StepReporter has none.",
                    Query(f"min by (pod, container) (up{WORKER})", "{{pod}} {{container}}"),
                    states=DOWN_OR_UP,
                    first=0,
                    size=HALF,
                ),
                graph(
                    "Workers",
                    "Workers that the job wants, whose Pods are ready, and whose ranks run.",
                    "short",
                    Query(f"max by (state) (sternpost_job_workers{JOB})", "{{state}}"),
                    size=HALF,
                    legend=("lastNotNull", "min"),
                ),
                graph(
                    "Eagle-eye: trainer pages read",
                    "By outcome. Other than ok for long: the script has no StepReporter, or its page does not answer.",
                    "ops",
                    Query(f"sum by (outcome) (rate(sternpost_eagle_eye_scrapes_total{JOB}[{RATE}]))", "{{outcome}}"),
                    size=THIRD,
                ),
                graph(
                    "Eagle-eye: vectors",
                    "What the sidecars send to worker 0, and what arrives there; refused ones are of an attempt that is over.",
                    "ops",
                    Query(
                        f"sum by (outcome) (rate(sternpost_eagle_eye_pushes_total{JOB}[{RATE}]))", "sent: {{outcome}}"
                    ),
                    Query(
                        f"sum by (outcome) (rate(sternpost_eagle_eye_vectors_total{JOB}[{RATE}]))",
                        "received: {{outcome}}",
                    ),
                    size=THIRD,
                ),
                graph(
                    "Since the last report",
                    "Since the operator last heard from worker 0's eagle-eye. It reports every 5 s at the latest.",
                    "s",
                    Query(f"time() - max(sternpost_job_progress_timestamp_seconds{JOB})", "silence"),
                    size=THIRD,
                    steps=thresholds(GOOD, (30, WARN), (120, BAD)),
                ),
            ],
        )
    ]
