"""The Checkpointer's metrics, on the trainer's page."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Gauge, Summary

SOURCES = ("shared-memory", "peer", "storage", "none")
"""From near to far; of several the farthest is named."""


class ClientMetrics:
    """See docs/contracts.md."""

    def __init__(self) -> None:
        self.blocked = Summary("sternpost_checkpoint_blocked_seconds", "Time a save held the training up", ["rank"])
        self.skipped = Counter(
            "sternpost_checkpoint_skipped",
            "Saves left out because the sidecar was still busy with both slots",
            ["rank"],
        )
        self._waiting = Gauge(
            "sternpost_checkpoint_waiting", "1 while the training waits for the sidecar or the storage", ["rank"]
        )
        self.restored_step = Gauge("sternpost_restored_step", "Step that the training went on from", ["rank"])
        self.restore_seconds = Gauge("sternpost_restore_seconds", "How long the restore took", ["rank"])
        self.restore_timestamp = Gauge("sternpost_restore_timestamp_seconds", "When it ended, Unix time", ["rank"])
        self.restore_source = Gauge("sternpost_restore_source", "1 for the source that was used", ["rank", "source"])

    @contextmanager
    def waiting(self, label: str) -> Iterator[None]:
        """Say that standing still is meant, for as long as it lasts."""
        self._waiting.labels(label).set(1)
        try:
            yield
        finally:
            self._waiting.labels(label).set(0)

    def restored(self, rank: int, step: int, seconds: float, source: str, now: float) -> None:
        """Set everything about a restore."""
        label = str(rank)
        self.restored_step.labels(label).set(step)
        self.restore_seconds.labels(label).set(seconds)
        for name in SOURCES:
            self.restore_source.labels(label, name).set(1 if name == source else 0)
        self.restore_timestamp.labels(label).set(now)


@functools.cache
def client_metrics() -> ClientMetrics:
    """The process's metrics: the registry takes each name once, however many Checkpointers there are."""
    return ClientMetrics()
