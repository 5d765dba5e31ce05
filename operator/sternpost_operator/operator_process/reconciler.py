"""Takes jobs from the queue and reconciles them, several at a time, each one once at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from sternpost_operator.cluster.base import InvalidJobError
from sternpost_operator.cluster.kubernetes.cluster import KubernetesCluster
from sternpost_operator.cluster.kubernetes.entries import JobEntry
from sternpost_operator.cluster.kubernetes.inventory import JobKey
from sternpost_operator.cluster.kubernetes.status_patch import note_invalid
from sternpost_operator.metrics.jobs import JobMetrics, JobSample
from sternpost_operator.metrics.operator_metrics import OperatorMetrics, ReconcileResult
from sternpost_operator.operator_process.back_off import BackOff
from sternpost_operator.operator_process.diary import JobName, entries
from sternpost_operator.operator_process.events import EventWriter
from sternpost_operator.operator_process.queue import WorkQueue
from sternpost_operator.operator_process.wake import next_look
from sternpost_operator.reconcile import Reconciled, reconcile
from sternpost_operator.resources.progress import ProgressReport
from sternpost_operator.resources.training_job import TrainingJob
from sternpost_operator.resources.training_job_status import TrainingJobStatus

_logger = structlog.get_logger(__name__)

WORKERS = 16
"""Reconciles at a time."""
FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 30.0
RECENT = timedelta(minutes=10)
"""What happened longer ago is no news to an operator that starts. Shorter than the API server keeps Events."""


class Reconciler:
    """The jobs of `cluster`, as `queue` brings them."""

    def __init__(
        self,
        cluster: KubernetesCluster,
        queue: WorkQueue[JobKey],
        *,
        metrics: OperatorMetrics,
        job_metrics: JobMetrics,
        events: EventWriter,
        now: Callable[[], datetime],
    ) -> None:
        self._cluster = cluster
        self._queue = queue
        self._metrics = metrics
        self._job_metrics = job_metrics
        self._events = events
        self._now = now
        self._back_off: BackOff[JobKey] = BackOff(FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS)
        self._told: dict[JobKey, tuple[str, TrainingJobStatus]] = {}
        self._progress: dict[JobKey, ProgressReport] = {}
        self._seen: dict[JobKey, TrainingJob] = {}

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(WORKERS):
                group.create_task(self._work(), name=f"reconciler {number}")

    def jobs(self) -> list[TrainingJob]:
        """All jobs that can be understood, as they were seen last."""
        return list(self._seen.values())

    async def _work(self) -> None:
        while True:
            key, waited = await self._queue.take()
            self._metrics.queue_wait_seconds.observe(waited)
            began = time.monotonic()
            result: ReconcileResult = "error"
            again: float | None = None
            try:
                result, again = await self._reconcile(key)
            except Exception as error:
                again = self._back_off.failed(key)
                _logger.exception("reconcile failed", namespace=key[0], job=key[1], error=repr(error), seconds=again)
            finally:
                self._queue.done(key, again)
            self._metrics.reconciled(result, time.monotonic() - began)

    async def _reconcile(self, key: JobKey) -> tuple[ReconcileResult, float | None]:
        """What came of it, and after how many seconds to look again."""
        entry = self._cluster.inventory.jobs.get(*key)
        before = self._seen.get(key)
        if before is not None and (entry is None or entry.uid != before.metadata.uid):
            self._forget(key, before)
        if entry is None:
            return "ok", None
        try:
            done = await reconcile(
                self._cluster.in_namespace(key[0]), key[1], self._now, last_progress=self._progress.get(key)
            )
        except InvalidJobError as error:
            return await self._refuse(entry, error)
        if done.job is not None:
            self._tell(key, done.job)
            self._show(key, done)
        if done.retry:
            return ("conflict" if done.job is None and "changed by others" in done.error else "no_answer"), (
                self._back_off.failed(key)
            )
        self._back_off.succeeded(key)
        if done.job is None or done.observed is None:
            return "ok", None
        return "ok", next_look(done.job, done.observed, self._now())

    async def _refuse(self, entry: JobEntry, error: InvalidJobError) -> tuple[ReconcileResult, float | None]:
        """Say in the status what is wrong, and leave the job alone until it changes."""
        try:
            before, after = await note_invalid(self._cluster, entry, error, self._now())
        except OSError as failure:
            _logger.warning("no answer", namespace=entry.namespace, job=entry.name, detail=str(failure))
            return "no_answer", self._back_off.failed(entry.key)
        self._back_off.succeeded(entry.key)
        for each in entries(before, after, self._now()):
            self._events.tell(JobName(*entry.key, entry.uid), each)
        return "ok", None

    def _tell(self, key: JobKey, job: TrainingJob) -> None:
        """Events and counters of what is new in the status."""
        uid, now = job.metadata.uid, self._now()
        known = self._told.get(key)
        before = known[1] if known is not None and known[0] == uid else None
        self._told[key] = (uid, job.status)
        self._seen[key] = job
        if before is not None:
            if before == job.status:
                return
            self._metrics.status_changed(before, job.status)
        elif job.metadata.creation_timestamp is not None and now - job.metadata.creation_timestamp < RECENT / 10:
            self._metrics.status_changed(TrainingJobStatus(), job.status)
        for entry in entries(before, job.status, now):
            if before is not None or now - entry.at < RECENT:
                self._events.tell(JobName(*key, uid), entry)

    def _show(self, key: JobKey, done: Reconciled) -> None:
        job, observed = done.job, done.observed
        if job is None or observed is None:
            return
        if observed.last_progress is not None:
            self._progress[key] = observed.last_progress
        self._job_metrics.show(*key, JobSample(job.status, job.spec, observed.anomalies, observed.last_progress))

    def _forget(self, key: JobKey, job: TrainingJob) -> None:
        """The job is gone: nothing of it stays in here but what it still had to tell."""
        _logger.info("job is gone", namespace=key[0], job=key[1], uid=job.metadata.uid)
        self._cluster.incidents.job_gone(job)
        self._cluster.forget(key, job.metadata.uid)
        self._job_metrics.forget(*key)
        self._back_off.succeeded(key)
        for known in (self._told, self._progress, self._seen):
            known.pop(key, None)
