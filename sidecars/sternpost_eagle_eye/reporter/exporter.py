"""Serves a registry over HTTP from a thread. A port that is taken never stops a training."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, start_http_server

PORT_VARIABLE = "STERNPOST_METRICS_PORT"
HOST_VARIABLE = "STERNPOST_METRICS_HOST"

log = logging.getLogger(__name__)


class Exporter:
    """A metrics page, or none if no port is set or it is not to be had."""

    def __init__(self, registry: CollectorRegistry, environ: Mapping[str, str] = os.environ) -> None:
        """Serve on `STERNPOST_METRICS_PORT` of `STERNPOST_METRICS_HOST` (all addresses unless set)."""
        self.port: int | None = None
        self._server = None
        self._thread: threading.Thread | None = None
        text = environ.get(PORT_VARIABLE, "")
        if not text:
            return
        # All addresses: in a Pod a PodMonitor scrapes the Pod's address, not the loopback's.
        host = environ.get(HOST_VARIABLE, "0.0.0.0")  # noqa: S104
        try:
            port = int(text)
            self._server, self._thread = start_http_server(port, host, registry)
        except (OSError, ValueError, OverflowError) as error:
            log.warning(
                "no step metrics: cannot serve on %s=%r of host %s: %s; free that port or set another one. "
                "The training goes on without them",
                PORT_VARIABLE,
                text,
                host,
                error,
            )
        else:
            self.port = self._server.server_port

    def close(self) -> None:
        """Stop serving; the port is free afterwards."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None
