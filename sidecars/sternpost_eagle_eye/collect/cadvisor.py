"""cAdvisor's metrics of the worker's own containers."""

from __future__ import annotations

import math
from typing import Any

from sternpost_eagle_eye.collect.page import Page, PageSample

PREFIX = "container_"
_SUMS = {
    "container_cpu": "container_cpu_usage_seconds_total",
    "container_throttled": "container_cpu_cfs_throttled_seconds_total",
    "container_memory": "container_memory_working_set_bytes",
    "container_memory_limit": "container_spec_memory_limit_bytes",
    "container_oom_events": "container_oom_events_total",
    "container_received": "container_network_receive_bytes_total",
    "container_sent": "container_network_transmit_bytes_total",
}
NAMES = frozenset(_SUMS.values())


def container_fields(page: Page, pod: str | None = None) -> dict[str, Any]:
    """Fields of an ExporterVector. With `pod`, other Pods' containers do not count."""
    fields: dict[str, Any] = {}
    for field, name in _SUMS.items():
        samples = [
            sample
            for sample in page.by_name.get(name, ())
            if 0 <= sample.value < math.inf and (pod is None or sample.labels.get("pod") in (pod, None))
        ]
        if own := _leaves(samples):
            fields[field] = math.fsum(sample.value for sample in own)
    return fields


def _leaves(samples: list[PageSample]) -> list[PageSample]:
    """A Pod's group holds the sum of its containers: count either it or them."""
    named = [sample for sample in samples if sample.labels.get("container") not in (None, "", "POD")]
    return named or samples
