"""The sidecar's own metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector


class OwnMetrics:
    """In a registry of their own, beside the process's memory and processor time: what watching costs shall be seen."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.scrapes = Counter(
            "sternpost_eagle_eye_scrapes", "Trainer pages asked for, by outcome", ["outcome"], registry=self.registry
        )
        self.dropped = Counter(
            "sternpost_eagle_eye_dropped", "Samples, pages and files that made no sense", registry=self.registry
        )
        self.pushes = Counter(
            "sternpost_eagle_eye_pushes", "Vectors sent to worker 0, by outcome", ["outcome"], registry=self.registry
        )
        self.vectors = Counter(
            "sternpost_eagle_eye_vectors", "Vectors received, by outcome", ["outcome"], registry=self.registry
        )
        self.handovers = Counter(
            "sternpost_eagle_eye_handovers", "Attempts handed to the launcher", registry=self.registry
        )
        self.anomalies = Counter(
            "sternpost_eagle_eye_anomalies", "Findings written, each once, by kind", ["kind"], registry=self.registry
        )
        self.attempt = Gauge("sternpost_eagle_eye_attempt", "Number of the current attempt", registry=self.registry)
        self.judging = Gauge("sternpost_eagle_eye_judging", "1 in worker 0's sidecar", registry=self.registry)
        self.streams = Gauge(
            "sternpost_eagle_eye_progress_streams", "Listeners of this attempt's progress", registry=self.registry
        )
