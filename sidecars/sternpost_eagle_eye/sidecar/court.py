"""Worker 0's part: holds the judge of the current attempt, and writes what it finds."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from sternpost_eagle_eye.attempt import Attempt
from sternpost_eagle_eye.config import EagleEyePolicy, Settings
from sternpost_eagle_eye.control_plane.base import ControlPlane
from sternpost_eagle_eye.judge import Judge
from sternpost_eagle_eye.progress import ProgressReport, progress_report
from sternpost_eagle_eye.report import Anomaly, AnomalyReports
from sternpost_eagle_eye.sidecar.news import News, newsworthy
from sternpost_eagle_eye.sidecar.own_metrics import OwnMetrics
from sternpost_eagle_eye.vector import Vector

log = structlog.get_logger()


class Court:
    """In session only while this Pod is worker 0 of a running attempt; each attempt is judged from scratch."""

    def __init__(
        self,
        settings: Settings,
        control_plane: ControlPlane,
        metrics: OwnMetrics,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._control_plane = control_plane
        self._metrics = metrics
        self._monotonic = monotonic
        self._wall = wall
        self._attempt: Attempt | None = None
        self._judge: Judge | None = None
        self._reports: AnomalyReports | None = None
        self._told: dict[str, tuple[object, ...]] = {}
        """What was last heard of each Pod that is worth telling at once, by uid."""
        self.news = News()
        self._trouble = ""

    @property
    def attempt(self) -> Attempt | None:
        """The newest attempt that this sidecar knows."""
        return self._attempt

    @property
    def session(self) -> object | None:
        """The same object as long as the same run is judged here; None while nothing is."""
        return self._judge

    def adjourn(self) -> None:
        """The sidecar stops: nothing is judged any more."""
        self._judge = self._reports = None
        self._metrics.judging.set(0)
        self.news.happened()

    @property
    def policy(self) -> EagleEyePolicy:
        """Thresholds that count now: the Attempt's, else those that the Pod was made with."""
        told = self._attempt.spec.eagle_eye if self._attempt is not None else None
        return told or self._settings.policy

    def convene(self, attempt: Attempt) -> None:
        """A new version of the Attempt: a new judge, or none if that is another worker's task."""
        before, self._attempt = self._attempt, attempt
        if before is not None and self._judge is not None and _same_run(before, attempt):
            self._judge.job.renew(attempt)
            self._judge.adopt(self.policy)
            self.news.happened()
            return
        worker = attempt.judge()
        ours = worker is not None and worker.uid == self._settings.pod_uid
        self._judge = Judge(attempt, self.policy, self._monotonic()) if ours else None
        self._reports = AnomalyReports(attempt, self._settings.namespace) if ours else None
        self._metrics.judging.set(1 if ours else 0)
        self._told = {}
        self.news.happened()

    def take(self, vector: Vector) -> str | None:
        """A vector; otherwise the reason why it does not count."""
        if self._judge is None:
            return "this is not worker 0 of the current attempt"
        reason = self._judge.take(vector, self._monotonic(), self._wall())
        if reason is None and (now := newsworthy(vector)) != self._told.get(vector.pod_uid):
            self._told[vector.pod_uid] = now
            self.news.happened()
        return reason

    def progress(self) -> ProgressReport | None:
        """None where there is nothing to judge."""
        if self._judge is None:
            return None
        return progress_report(self._judge.job, self._judge.clock(self._monotonic()), self._wall())

    async def sit(self) -> None:
        """Once an interval: judge, and write what is due, provided that the attempt still counts."""
        judge, reports = self._judge, self._reports
        if judge is None or reports is None:
            return
        due = reports.due(judge.tick(self._monotonic()), self._wall())
        written = 0
        try:
            if due and await self._counts(judge.job.attempt):
                for anomaly in due:
                    await self._write(anomaly)
                    written += 1
            self._trouble = ""
        except OSError as error:
            if str(error) != self._trouble:  # once for each change, not once a second
                self._trouble = str(error)
                log.warning("anomaly not written, trying again", name=due[written].name, error=str(error)[:500])
        for unwritten in due[written:]:
            reports.failed(unwritten)

    async def _counts(self, attempt: Attempt) -> bool:
        """Whether the attempt is still the one that counts. Raises OSError."""
        current = await self._control_plane.current()
        return current is not None and _same_run(current.attempt, attempt)

    async def _write(self, anomaly: Anomaly) -> None:
        """Raises OSError."""
        await self._control_plane.write_anomaly(anomaly)
        if anomaly.new:
            spec = anomaly.manifest["spec"]
            self._metrics.anomalies.labels(spec["kind"]).inc()
            told = ("kind", "worker", "node", "confidence", "evict", "evidence")
            log.info("anomaly", **{key: spec.get(key) for key in told})


def _same_run(one: Attempt, other: Attempt) -> bool:
    return (
        one.spec.id == other.spec.id and one.spec.action == other.spec.action and one.spec.workers == other.spec.workers
    )
