"""What most queries of this dashboard have in common."""

from __future__ import annotations

JOB = '{namespace="$namespace",job_name="$job"}'
"""Series of the job: the operator's about it, and those of all its Pods."""
WORKER = '{namespace="$namespace",job_name="$job",pod=~"$worker"}'
"""Series of the chosen Pods."""
RATE = "$__rate_interval"
SPAN = "$__range"
"""The whole time that is shown."""


def mean(summary: str, selector: str) -> str:
    """PromQL for the mean of a summary's observations, of each rank, over the rate interval."""
    return f"rate({summary}_sum{selector}[{RATE}]) / rate({summary}_count{selector}[{RATE}])"
