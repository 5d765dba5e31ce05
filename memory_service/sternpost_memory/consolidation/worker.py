"""The thread that consolidates. The service answers without it, too: what is written is found, buffered or not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from sternpost_memory.consolidation.engine import Engine
from sternpost_memory.consolidation.policy import Policy, due
from sternpost_memory.consolidation.step import consolidate_next
from sternpost_memory.errors import StoreConflict, StoreError
from sternpost_memory.metrics import Metrics
from sternpost_memory.store.base import Store

LOOK_AGAIN_SECONDS = 5.0
"""Another process may write to the same store without telling this one."""
RETRY_SECONDS = 1.0
"""After a store that could not be read or written."""
GATHER_SECONDS = 0.02
"""Between two looks at the buffers, however fast observations arrive."""

log = structlog.get_logger(__name__)


class Worker:
    """Consolidates what is due, one batch at a time, until it is stopped."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        *,
        policy: Policy,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._engine = engine
        self._policy = policy
        self._metrics = metrics
        self._clock = clock
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._requested: set[str] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to consolidate in the background."""
        self._thread = threading.Thread(target=self._run, name="consolidation", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """End after the batch at hand. What is left in the buffers is consolidated after the next start."""
        self._stop.set()
        self._wake.set()
        if self._thread:
            self._thread.join(timeout)

    @property
    def failed(self) -> bool:
        """Whether it was started and ended without being told to."""
        return self._thread is not None and not self._thread.is_alive() and not self._stop.is_set()

    def notify(self) -> None:
        """Something was written."""
        self._wake.set()

    def request(self, space: str) -> None:
        """Consolidate all of a space's buffer now."""
        with self._lock:
            self._requested.add(space)
        self._wake.set()

    def work(self) -> float:
        """Consolidate one batch of every space that is due; returns the seconds until it is worth looking again."""
        with self._lock:
            requested = set(self._requested)
        try:
            buffers = self._store.buffers()
            self._metrics.store_up.set(1)
            self._metrics.buffered.set(sum(buffer.count for buffer in buffers))
            plan = due(buffers, requested, self._policy, self._clock())
            for space in plan.spaces:
                self._consolidate(space)
            with self._lock:
                self._requested -= requested - {buffer.space for buffer in buffers}
        except StoreConflict as conflict:
            self._metrics.consolidations.labels("conflict").inc()
            log.info("planning a consolidation again", why=str(conflict))
            return 0.0
        except StoreError as error:
            self._metrics.store_up.set(0)
            self._metrics.consolidations.labels("failed").inc()
            log.error("cannot consolidate now, trying again", error=str(error), seconds=RETRY_SECONDS)  # noqa: TRY400 - the message says all, a traceback nothing more
            return RETRY_SECONDS
        if plan.spaces:
            return 0.0
        return LOOK_AGAIN_SECONDS if plan.wait is None else min(plan.wait, LOOK_AGAIN_SECONDS)

    def _consolidate(self, space: str) -> None:
        if self._stop.is_set():
            return
        with self._metrics.consolidation_seconds.time():
            count = consolidate_next(self._store, self._engine, space, now=self._clock())
        self._metrics.consolidations.labels("committed").inc()
        self._metrics.consolidated.inc(count)
        log.debug("consolidated", space=space, observations=count)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            seconds = self.work()
            if seconds:
                self._wake.wait(seconds)
                self._stop.wait(GATHER_SECONDS)
