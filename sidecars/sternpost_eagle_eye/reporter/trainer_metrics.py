"""The metrics of one rank, by the names of the contract between trainer and sidecar."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Summary

PHASES = ("init", "train", "eval", "checkpoint")


class TrainerMetrics:
    """Registers everything once. A series appears with its first value: no step yet is not step 0."""

    def __init__(self, registry: CollectorRegistry, rank: str, attempt: str) -> None:
        self._registry = registry
        self._rank = rank

        def gauge(name: str, documentation: str, *labels: str) -> Gauge:
            return Gauge(name, documentation, ["rank", *labels], registry=registry)

        self.step_gauge = gauge("sternpost_step", "Last completed step")
        self.loss_gauge = gauge("sternpost_loss", "Loss as last reported")
        self.grad_norm_gauge = gauge("sternpost_grad_norm", "Norm of the gradient as last reported")
        self.phase_gauge = gauge("sternpost_phase", "1 for the current phase", "phase")
        in_collective = gauge("sternpost_in_collective", "1 while this rank waits for other ranks")
        self.last_step_gauge = gauge("sternpost_last_step_timestamp_seconds", "When the last step was completed")
        self.first_step_gauge = gauge("sternpost_first_step", "First step that this process completed")
        self.first_step_time_gauge = gauge(
            "sternpost_first_step_timestamp_seconds", "When this process completed its first step"
        )
        self.attempt_gauge = gauge("sternpost_attempt_info", "The attempt this process belongs to", "attempt")
        step_seconds = Summary("sternpost_step_seconds", "Duration of a step", ["rank"], registry=registry)
        compute_seconds = Summary(
            "sternpost_compute_seconds",
            "Duration of a step without the wait for other ranks",
            ["rank"],
            registry=registry,
        )
        samples = Counter("sternpost_samples_total", "Samples trained on", ["rank"], registry=registry)
        self._collectors: tuple[Gauge | Summary | Counter, ...] = (
            self.step_gauge,
            self.loss_gauge,
            self.grad_norm_gauge,
            self.phase_gauge,
            in_collective,
            self.last_step_gauge,
            self.first_step_gauge,
            self.first_step_time_gauge,
            self.attempt_gauge,
            step_seconds,
            compute_seconds,
            samples,
        )
        self.in_collective = in_collective.labels(rank)
        self.step_seconds = step_seconds.labels(rank)
        self.compute_seconds = compute_seconds.labels(rank)
        self.samples = samples.labels(rank)
        self.phases = {phase: self.phase_gauge.labels(rank, phase) for phase in PHASES}
        if attempt:
            self.attempt_gauge.labels(rank, attempt).set(1)

    def step_completed(self, step: int, at: float) -> None:
        """`at`: Unix seconds."""
        self.step_gauge.labels(self._rank).set(step)
        self.last_step_gauge.labels(self._rank).set(at)

    def first_step_completed(self, step: int, at: float) -> None:
        """`at`: Unix seconds."""
        self.first_step_gauge.labels(self._rank).set(step)
        self.first_step_time_gauge.labels(self._rank).set(at)

    def set_loss(self, value: float) -> None:
        """NaN and infinity are kept: they are news."""
        self.loss_gauge.labels(self._rank).set(value)

    def set_grad_norm(self, value: float) -> None:
        """NaN and infinity are kept: they are news."""
        self.grad_norm_gauge.labels(self._rank).set(value)

    def set_phase(self, phase: str) -> None:
        """Exactly one phase is 1."""
        for name, child in self.phases.items():
            child.set(1 if name == phase else 0)

    def unregister(self) -> None:
        """Free the names in the registry."""
        collectors, self._collectors = self._collectors, ()
        for collector in collectors:
            self._registry.unregister(collector)
