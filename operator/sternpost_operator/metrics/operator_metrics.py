"""Counters and gauges of the operator itself. No label names a job: their number must not grow with what users do."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from sternpost_operator.metrics.changes import RUNG_NAMES, STAGES, changes
from sternpost_operator.resources.training_job_status import Cause, TrainingJobStatus

PREFIX = "sternpost_operator_"

REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
RECONCILE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
STAGE_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1200)

ReconcileResult = Literal["ok", "conflict", "no_answer", "error"]


class OperatorMetrics:
    """All of them, in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(PREFIX + name, text, labels, registry=registry)

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(PREFIX + name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()) -> Histogram:
            return Histogram(PREFIX + name, text, labels, buckets=buckets, registry=registry)

        self.leader = gauge("leader", "1 for the replica that leads.")
        self.leader_transitions = counter("leader_transitions_total", "Changes of the leader that this replica saw.")
        self.reconciles = counter("reconciles_total", "Reconciles by what came of them.", ("result",))
        self.reconcile_seconds = histogram("reconcile_seconds", "How long a reconcile takes.", RECONCILE_BUCKETS)
        self.queue_depth = gauge("queue_depth", "Jobs that are due for a reconcile and wait.")
        self.queue_wait_seconds = histogram("queue_wait_seconds", "How long jobs are due before.", RECONCILE_BUCKETS)
        self.recoveries = counter("recoveries_total", "Recoveries decided upon.", ("cause", "rung"))
        self.recovery_stage_seconds = histogram(
            "recovery_stage_seconds", "Stages of recoveries.", STAGE_BUCKETS, ("stage",)
        )
        self.lost_steps = counter("lost_steps_total", "Steps that had to be made again.")
        self.api_requests = counter(
            "api_requests_total", "Requests that the API server answered.", ("verb", "resource", "code")
        )
        self.api_request_seconds = histogram(
            "api_request_seconds", "Until the answer begins.", REQUEST_BUCKETS, ("verb", "resource")
        )
        self.api_errors = counter("api_errors_total", "Requests that failed, by why.", ("verb", "resource", "reason"))
        self.incidents = counter("incidents_total", "Attempts to tell the memory service.", ("result",))
        self.incidents_unsent = gauge("incidents_unsent", "Incidents that the memory service has not taken yet.")
        self.nodes_cordoned = gauge("nodes_cordoned", "Nodes that the operator keeps cordoned.")
        self.node_cordoned_now = gauge("node_cordoned", "1 for a node that the operator keeps cordoned.", ("node",))
        self.node_cordons = counter("node_cordons_total", "Nodes cordoned, by why.", ("reason",))
        self.drains = counter("drains_total", "Drains of nodes by what came of them.", ("result",))
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Series that are there from the start: a rate over a counter that appears with its first event misses it."""
        for result in ("ok", "conflict", "no_answer", "error"):
            self.reconciles.labels(result)
        for taken in ("taken", "failed"):
            self.incidents.labels(taken)
        for stage in STAGES:
            self.recovery_stage_seconds.labels(stage)
        for cause in set(Cause) - {Cause.SPEC_CHANGED, Cause.SUSPENDED}:
            for rung in RUNG_NAMES.values():
                self.recoveries.labels(str(cause), rung)
        for outcome in ("done", "blocked", "error"):
            self.drains.labels(outcome)

    def status_changed(self, before: TrainingJobStatus, after: TrainingJobStatus) -> None:
        """Count what came to pass in a job."""
        found = changes(before, after)
        for cause, rung in found.recoveries:
            self.recoveries.labels(cause, rung).inc()
        for stage, seconds in found.stages:
            self.recovery_stage_seconds.labels(stage).observe(seconds)
        self.lost_steps.inc(found.lost_steps)

    def reconciled(self, result: ReconcileResult, seconds: float) -> None:
        """A reconcile is done."""
        self.reconciles.labels(result).inc()
        self.reconcile_seconds.observe(seconds)

    def request_done(self, verb: str, resource: str, code: str, seconds: float) -> None:
        """As `RequestObserver`."""
        self.api_requests.labels(verb, resource, code).inc()
        self.api_request_seconds.labels(verb, resource).observe(seconds)
        if code[:1] in ("4", "5") and code not in ("404", "409"):
            self.api_errors.labels(verb, resource, "server" if code[:1] == "5" else "refused").inc()
        elif code == "409" and verb != "create":
            self.api_errors.labels(verb, resource, "conflict").inc()

    def request_failed(self, verb: str, resource: str, reason: str, seconds: float) -> None:
        """As `RequestObserver`."""
        self.api_errors.labels(verb, resource, reason).inc()
        self.api_request_seconds.labels(verb, resource).observe(seconds)

    def incident_sent(self, *, taken: bool) -> None:
        """As `IncidentObserver`."""
        self.incidents.labels("taken" if taken else "failed").inc()

    def incidents_waiting(self, count: int) -> None:
        """As `IncidentObserver`."""
        self.incidents_unsent.set(count)

    def node_cordoned(self, reason: str) -> None:
        """As `KeeperObserver`."""
        self.node_cordons.labels(reason).inc()

    def drain_ended(self, result: str) -> None:
        """As `KeeperObserver`."""
        self.drains.labels(result).inc()

    def keeps_cordoned(self, nodes: Collection[str]) -> None:
        """These nodes, and no others, are cordoned by the operator now."""
        self.nodes_cordoned.set(len(nodes))
        self.node_cordoned_now.clear()
        for node in nodes:
            self.node_cordoned_now.labels(node).set(1)
