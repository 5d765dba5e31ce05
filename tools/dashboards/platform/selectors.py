"""What most queries of this dashboard have in common."""

from __future__ import annotations

JOBS = '{namespace=~"$namespace"}'
"""Series of jobs in the chosen namespaces."""
LIVE = '{namespace=~"$namespace",phase!~"Succeeded|Failed"}'
RATE = "$__rate_interval"
SPAN = "$__range"
"""The whole time that is shown."""
EACH = "by (namespace, job_name)"
"""Both replicas of the operator may show a job for a moment while the leader changes: `max` counts it once."""
