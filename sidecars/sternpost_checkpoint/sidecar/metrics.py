"""The sidecar's own metrics page."""

from __future__ import annotations

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, start_http_server

from sternpost_checkpoint.adaptive.pressure import Shortage
from sternpost_checkpoint.sidecar.encoder import Encoding

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

        self.ratio = Gauge(
            "sternpost_checkpoint_ratio", "Bytes of state for each byte written, of the last save", registry=registry
        )
        self.bytes_per_second = Gauge(
            "sternpost_checkpoint_bytes_per_second",
            "Bytes of state made durable a second, of the last save",
            registry=registry,
        )
        self.progress = Gauge(
            "sternpost_checkpoint_progress_ratio",
            "How much of the save that is being stored has been written",
            ["rank"],
            registry=registry,
        )
        self.stage_seconds = Counter(
            "sternpost_checkpoint_stage_seconds",
            "Where the time of the saves goes: plan, encode, wait-encoder (the upload has nothing to send), wait-store (encoders"
            " have no room), upload, finish (from the last byte sent until it is durable)",
            ["stage"],
            registry=registry,
        )
        self.codec_tensors = Counter(
            "sternpost_checkpoint_codec_tensors", "Tensors stored by each codec", ["codec"], registry=registry
        )
        self.codec_raw_bytes = Counter(
            "sternpost_checkpoint_codec_raw_bytes", "Bytes of state given to each codec", ["codec"], registry=registry
        )
        self.codec_stored_bytes = Counter(
            "sternpost_checkpoint_codec_stored_bytes",
            "Bytes that each codec made of them",
            ["codec"],
            registry=registry,
        )
        self.chain = Gauge(
            "sternpost_checkpoint_chain",
            "Generations that a restore of the last save reads behind it",
            registry=registry,
        )
        self.short_of = Gauge(
            "sternpost_checkpoint_short_of",
            "1 for what the last save waited for: cpu, store, or nothing",
            ["resource"],
            registry=registry,
        )
        self.memory_bytes = Gauge(
            "sternpost_checkpoint_memory_bytes",
            "Memory of the sidecar: pipeline (encoded, not sent yet), bases (earlier states to encode against)",
            ["use"],
            registry=registry,
        )
        self.stuck = Gauge(
            "sternpost_checkpoint_stuck_calls",
            "Calls of the storage that were given up and have not returned",
            registry=registry,
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

    def saved(self, encoding: Encoding, seconds: float, shortage: Shortage) -> None:
        """A save has become durable, `seconds` after its beginning."""
        self.raw_bytes.inc(encoding.raw_bytes)
        self.stored_bytes.inc(encoding.bytes)
        self.persist_seconds.set(seconds)
        self.ratio.set(encoding.raw_bytes / encoding.bytes)
        self.bytes_per_second.set(encoding.raw_bytes / seconds if seconds > 0 else 0.0)
        self.chain.set(encoding.chain)
        for stage, spent in encoding.stages().items():
            self.stage_seconds.labels(stage).inc(spent)
        for codec, totals in encoding.totals.items():
            self.codec_tensors.labels(codec).inc(totals.tensors)
            self.codec_raw_bytes.labels(codec).inc(totals.raw_bytes)
            self.codec_stored_bytes.labels(codec).inc(totals.stored_bytes)
        for resource in Shortage:
            self.short_of.labels(resource.value).set(float(resource is shortage))

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
