"""The sidecar's own metrics page."""

from __future__ import annotations

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, start_http_server

MAX_REASON = 400
"""Characters of a problem that are shown."""

_log = structlog.get_logger()


class Metrics:
    """What the sidecar counts; see docs/contracts.md."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._registry = registry
        self.committed_step = Gauge(
            "sternpost_checkpoint_committed_step",
            "Step of the newest generation known to be committed",
            registry=registry,
        )
        self.committed_timestamp = Gauge(
            "sternpost_checkpoint_committed_timestamp_seconds", "When it was committed, Unix time", registry=registry
        )
        self.raw_bytes = Counter("sternpost_checkpoint_raw_bytes", "Bytes of state made durable", registry=registry)
        self.stored_bytes = Counter("sternpost_checkpoint_stored_bytes", "Bytes written for them", registry=registry)
        self.failures = Counter(
            "sternpost_checkpoint_failures", "Saves that the storage refused; each is tried again", registry=registry
        )
        self.persist_seconds = Gauge(
            "sternpost_checkpoint_persist_seconds", "How long the last save took to become durable", registry=registry
        )

        self._problem = Gauge(
            "sternpost_checkpoint_problem",
            "1 while the last save, commit or fetch has failed; the label says why",
            ["reason"],
            registry=registry,
        )

    @property
    def registry(self) -> CollectorRegistry:
        """What the page shows."""
        return self._registry

    def failed(self, reason: str) -> None:
        """Show the newest problem, and only that."""
        self._problem.clear()
        self._problem.labels(reason[:MAX_REASON]).set(1)

    def succeeded(self) -> None:
        """There is no problem any more."""
        self._problem.clear()

    def serve(self, port: int) -> None:
        """Serve the page. A taken port costs the metrics, never the checkpoints."""
        try:
            start_http_server(port, registry=self._registry)
        except OSError as error:
            _log.error(  # the traceback says nothing that the message does not
                "metrics are not served: the port cannot be used; checkpoints go on",
                port=port,
                reason=str(error),
                way_out="free the port, or set another one in STERNPOST_PORT_CHECKPOINT",
            )
