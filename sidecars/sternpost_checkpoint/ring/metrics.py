"""What the ring counts; on the checkpoint sidecar's page."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class RingMetrics:
    """See docs/contracts.md."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.pushed_bytes = Counter(
            "sternpost_checkpoint_peer_pushed_bytes", "Bytes of state copied to the next worker", registry=registry
        )
        self.push_seconds = Gauge(
            "sternpost_checkpoint_peer_push_seconds",
            "How long the last copy to the next worker took",
            registry=registry,
        )
        self.push_failures = Counter(
            "sternpost_checkpoint_peer_push_failures",
            "Copies that the next worker did not take; each is tried again",
            registry=registry,
        )
        self.pushed_step = Gauge(
            "sternpost_checkpoint_peer_pushed_step",
            "Step of the newest state that the next worker has a copy of",
            registry=registry,
        )
        self.held_bytes = Gauge(
            "sternpost_checkpoint_peer_held_bytes", "Memory that holds other workers' states", registry=registry
        )
        self.fetched_bytes = Counter(
            "sternpost_checkpoint_peer_fetched_bytes", "Bytes of state restored from peers' memory", registry=registry
        )
