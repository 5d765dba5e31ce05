"""Gauges of each job, from its status. They vanish with the job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sternpost_operator.recovery.observed import AnomalyView
from sternpost_operator.resources.progress import ProgressReport
from sternpost_operator.resources.training_job import RecoveryBudgets, TrainingJobSpec
from sternpost_operator.resources.training_job_status import BudgetsUsed, Phase, TrainingJobStatus

JOB = ("namespace", "job_name")

ANOMALY_SECONDS = 120.0
"""A finding ends its attempt within the second: it is shown for some scrapes more."""


@dataclass(frozen=True)
class JobSample:
    """What is shown of a job."""

    status: TrainingJobStatus
    spec: TrainingJobSpec
    anomalies: tuple[AnomalyView, ...] = ()
    progress: ProgressReport | None = None
    """The newest report of the current attempt; fresher than the status, which is written once a minute."""


class JobMetrics(Collector):
    """All jobs that are shown. Figures are made when they are asked for."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._samples: dict[tuple[str, str], JobSample] = {}
        registry.register(self)

    def show(self, namespace: str, name: str, sample: JobSample) -> None:
        """Show the job like this from now on."""
        self._samples[namespace, name] = sample

    def forget(self, namespace: str, name: str) -> None:
        """The job is gone."""
        self._samples.pop((namespace, name), None)

    def collect(self) -> Iterator[Metric]:
        """As Prometheus asks."""
        samples = dict(self._samples)
        yield _phases(sample.status.phase for sample in samples.values())
        yield _excluded(sample.status for sample in samples.values())
        yield _exclusions(sample.status for sample in samples.values())
        families = _families()
        for key, sample in samples.items():
            for name, labels, value in figures(sample, self._clock()):
                families[name].add_metric([*key, *labels], value)
        yield from families.values()


def _families() -> dict[str, GaugeMetricFamily]:
    """One for each name in `figures`."""
    described: dict[str, tuple[str, tuple[str, ...]]] = {
        "sternpost_job_phase": ("1 for the phase that the job is in.", ("phase",)),
        "sternpost_job_workers": ("Workers that the job shall have, that are ready, that run.", ("state",)),
        "sternpost_job_step": ("Last step that all workers completed.", ()),
        "sternpost_job_loss": ("Loss of that step.", ()),
        "sternpost_job_goodput_ratio": ("Share of the time since the start that went into steps that count.", ()),
        "sternpost_job_attempt": ("Number of the current attempt.", ()),
        "sternpost_job_budget_used_ratio": ("Share of a rung's budget that is used.", ("rung",)),
        "sternpost_job_recovery_started_timestamp_seconds": (
            "When the failure was noticed; only while recovering.",
            (),
        ),
        "sternpost_job_progress_timestamp_seconds": ("When the job last reported progress.", ()),
        "sternpost_job_checkpoint_step": ("Step of the newest committed checkpoint.", ()),
        "sternpost_job_checkpoint_timestamp_seconds": ("When it was committed.", ()),
        "sternpost_job_anomaly": ("1 while eagle-eye's finding stands.", ("kind", "node", "worker")),
        "sternpost_job_lost_steps": ("Steps that had to be made again.", ()),
        "sternpost_job_restarts": ("Attempts after the first.", ()),
    }
    return {name: GaugeMetricFamily(name, text, labels=[*JOB, *labels]) for name, (text, labels) in described.items()}


Figure = tuple[str, tuple[str, ...], float]


def figures(sample: JobSample, now: float) -> Iterator[Figure]:
    """Name, further labels and value of everything that is known of a job at `now`, in Unix seconds."""
    status, spec = sample.status, sample.spec
    yield "sternpost_job_phase", (str(status.phase),), 1.0
    yield "sternpost_job_workers", ("desired",), float(status.workers.desired)
    yield "sternpost_job_workers", ("ready",), float(status.workers.ready)
    yield "sternpost_job_workers", ("running",), float(status.workers.running)
    yield "sternpost_job_goodput_ratio", (), status.goodput.ratio
    yield "sternpost_job_attempt", (), float(status.attempt.number)
    yield "sternpost_job_lost_steps", (), float(status.lost_steps)
    yield "sternpost_job_restarts", (), float(status.restarts)
    for rung, ratio in budget_ratios(status.budgets, spec.recovery.budgets):
        yield "sternpost_job_budget_used_ratio", (rung,), ratio
    if status.recovery is not None and not status.phase.terminal:
        yield "sternpost_job_recovery_started_timestamp_seconds", (), status.recovery.detected_at.timestamp()
    yield from _progress(sample)
    yield from _checkpoint(sample)
    stands = (
        set()
        if status.phase.terminal
        else {
            (str(each.spec.kind), each.spec.node or "", "" if each.spec.worker is None else str(each.spec.worker))
            for each in sample.anomalies
            if each.spec.attempt == status.attempt.id or now - each.spec.last_seen.timestamp() < ANOMALY_SECONDS
        }
    )
    for labels in sorted(stands):
        yield "sternpost_job_anomaly", labels, 1.0


def budget_ratios(used: BudgetsUsed, allowed: RecoveryBudgets) -> Iterator[tuple[str, float]]:
    """The used share of each rung's budget; a budget of none is used up."""
    for rung, taken, limit in (
        ("ranks", used.ranks, allowed.ranks),
        ("pods", used.pods, allowed.pods),
        ("jobs", used.jobs, allowed.jobs),
    ):
        yield rung, taken / limit if limit else 1.0


def _progress(sample: JobSample) -> Iterator[Figure]:
    report, kept = sample.progress, sample.status.progress
    when: datetime | None
    if report is not None and report.attempt == sample.status.attempt.id:
        step, loss, when = report.step, report.loss, report.at
    elif kept is not None:
        step, loss, when = kept.step, kept.loss, kept.updated_at
    else:
        return
    if step is not None:
        yield "sternpost_job_step", (), float(step)
    if loss is not None:
        yield "sternpost_job_loss", (), loss
    if when is not None:
        yield "sternpost_job_progress_timestamp_seconds", (), when.timestamp()


def _checkpoint(sample: JobSample) -> Iterator[Figure]:
    report, kept = sample.progress, sample.status.checkpoint
    if (
        report is not None
        and report.attempt == sample.status.attempt.id
        and report.checkpoint.committed_step is not None
    ):
        step, when = report.checkpoint.committed_step, report.checkpoint.committed_at
    elif kept is not None and kept.last_step is not None:
        step, when = kept.last_step, kept.committed_at
    else:
        return
    yield "sternpost_job_checkpoint_step", (), float(step)
    if when is not None:
        yield "sternpost_job_checkpoint_timestamp_seconds", (), when.timestamp()


def _phases(phases: Iterable[Phase]) -> Metric:
    counts = dict.fromkeys(Phase, 0)
    for phase in phases:
        counts[phase] += 1
    family = GaugeMetricFamily("sternpost_operator_jobs", "Jobs in each phase.", labels=["phase"])
    for phase, count in counts.items():
        family.add_metric([str(phase)], float(count))
    return family


def _excluded(statuses: Iterable[TrainingJobStatus]) -> Metric:
    nodes = {each.node for status in statuses if not status.phase.terminal for each in status.excluded_nodes}
    return GaugeMetricFamily(
        "sternpost_operator_nodes_excluded", "Nodes that any job keeps away from.", value=float(len(nodes))
    )


def _exclusions(statuses: Iterable[TrainingJobStatus]) -> Metric:
    counts: dict[str, int] = {}
    for status in statuses:
        if not status.phase.terminal:
            for each in status.excluded_nodes:
                counts[each.node] = counts.get(each.node, 0) + 1
    family = GaugeMetricFamily(
        "sternpost_operator_node_exclusions", "Jobs that keep away from the node now.", labels=["node"]
    )
    for node, count in sorted(counts.items()):
        family.add_metric([node], float(count))
    return family
