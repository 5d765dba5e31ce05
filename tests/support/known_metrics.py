"""Every metric that the parts export, read from the very classes that export them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from sternpost_checkpoint.client.metrics import client_metrics
from sternpost_checkpoint.ring.metrics import RingMetrics
from sternpost_checkpoint.sidecar.metrics import Metrics as CheckpointMetrics
from sternpost_eagle_eye.reporter.trainer_metrics import TrainerMetrics
from sternpost_eagle_eye.sidecar.own_metrics import OwnMetrics
from sternpost_memory.metrics import Metrics as MemoryMetrics
from sternpost_operator.metrics.jobs import JobMetrics
from sternpost_operator.metrics.operator_metrics import OperatorMetrics

SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "summary": ("_sum", "_count"),
    "histogram": ("_sum", "_count", "_bucket"),
}
TARGET_LABELS = frozenset({"namespace", "pod", "node", "container", "job", "instance"})
"""Set by Prometheus, whatever the page says."""
WORKER_LABELS = TARGET_LABELS | {"job_name"}
"""Set on the pages of a worker Pod by the PodMonitor."""


@dataclass(frozen=True)
class Series:
    """A name as it stands in PromQL, and the labels it may have."""

    name: str
    kind: str
    own_labels: frozenset[str]
    labels: frozenset[str]


def known_series() -> dict[str, Series]:
    """All of them by name."""
    found: dict[str, Series] = {}
    for registry, labels in _registries():
        for collector in _collectors(registry):
            for series in _series(collector, labels):
                if series.name.startswith("sternpost_"):  # not what every process has
                    found[series.name] = series
    return found


def _registries() -> list[tuple[CollectorRegistry, frozenset[str]]]:
    trainer, checkpoint, operator = CollectorRegistry(), CollectorRegistry(), CollectorRegistry()
    TrainerMetrics(trainer, "0", "1-aaaaaaaa")
    CheckpointMetrics(checkpoint)
    RingMetrics(checkpoint)
    OperatorMetrics(operator)
    JobMetrics(operator)
    client_metrics()
    return [
        (trainer, WORKER_LABELS),
        (REGISTRY, WORKER_LABELS),
        (checkpoint, WORKER_LABELS),
        (OwnMetrics().registry, WORKER_LABELS),
        (MemoryMetrics().registry, TARGET_LABELS),
        (operator, TARGET_LABELS),
    ]


def _collectors(registry: CollectorRegistry) -> list[Any]:
    return list(registry._collector_to_names)


def _series(collector: Any, labels: frozenset[str]) -> list[Series]:
    """Of a metric object; a collector of another kind tells what it has when it is asked for its metrics."""
    if isinstance(collector, MetricWrapperBase):
        families = [(collector._name, collector._type, frozenset(collector._labelnames))]
    else:
        families = [(each.name, each.type, frozenset(getattr(each, "_labelnames", ()))) for each in collector.collect()]
    result = []
    for name, kind, own in families:
        own_labels = own | ({"le"} if kind == "histogram" else set())
        result += [Series(name + suffix, kind, own_labels, own_labels | labels) for suffix in SUFFIXES.get(kind, ("",))]
    return result
