"""Prometheus metrics. No label holds the name of a space: tenants do not see each other."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

FAST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """What one service counts, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "sternpost_memory_requests",
            "HTTP requests answered.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "sternpost_memory_request_seconds",
            "Time from a request to the end of its answer.",
            ["method", "route"],
            buckets=FAST_BUCKETS,
            registry=self.registry,
        )
        self.observations = Counter(
            "sternpost_memory_observations", "Observations acknowledged.", registry=self.registry
        )
        self.replays = Counter(
            "sternpost_memory_replayed_writes",
            "Writes that were answered from an earlier one with the same idempotency key.",
            registry=self.registry,
        )
        self.buffered = Gauge(
            "sternpost_memory_buffered_observations",
            "Observations that no topic document has yet.",
            registry=self.registry,
        )
        self.consolidated = Counter(
            "sternpost_memory_consolidated_observations",
            "Observations that went into topic documents.",
            registry=self.registry,
        )
        self.consolidations = Counter(
            "sternpost_memory_consolidations",
            "Consolidations by result: committed, conflict (planned again), failed (the store could not be used).",
            ["result"],
            registry=self.registry,
        )
        self.consolidation_seconds = Histogram(
            "sternpost_memory_consolidation_seconds",
            "Time of one consolidation, commit included.",
            buckets=FAST_BUCKETS,
            registry=self.registry,
        )
        self.store_errors = Counter(
            "sternpost_memory_store_errors",
            "Requests that failed because of the store, by kind of error.",
            ["error"],
            registry=self.registry,
        )
        self.store_up = Gauge(
            "sternpost_memory_store_up",
            "1 if the store could be used when it was last looked at, which is every few seconds, else 0.",
            registry=self.registry,
        )
        self.token_reviews = Counter(
            "sternpost_memory_token_reviews",
            "Tokens shown to the Kubernetes API server, by result: granted, refused, unavailable.",
            ["result"],
            registry=self.registry,
        )
