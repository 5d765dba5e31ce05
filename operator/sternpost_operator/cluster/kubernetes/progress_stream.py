"""What worker 0 of each running job tells, line by line, over one connection a job."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp
import structlog
from pydantic import ValidationError

from sternpost_operator.cluster.kubernetes.inventory import JobKey
from sternpost_operator.resources.attempt import AttemptSpec
from sternpost_operator.resources.progress import ProgressReport

_logger = structlog.get_logger(__name__)

FRESH_SECONDS = 12.0
"""A report older than that is no answer any more: one comes at least every 5 s."""
CONNECT_SECONDS = 2.0
SILENCE_SECONDS = 15.0
FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 5.0
MAX_LINE_BYTES = 8 * 1024 * 1024
"""A report of 10,000 workers is below that."""

TokenSource = Callable[[], Awaitable[str]]


@dataclass(frozen=True)
class Source:
    """Where the reports of an attempt come from."""

    attempt: str
    address: str
    port: int

    @property
    def url(self) -> str:
        """Of the stream."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.port}/v1/progress/stream"


def source_of(attempt: AttemptSpec | None) -> Source | None:
    """Worker 0 of the attempt, if it has workers."""
    zero = next((worker for worker in attempt.workers if worker.index == 0), None) if attempt is not None else None
    return None if attempt is None or zero is None else Source(attempt.id, zero.address, zero.eagle_eye_port)


class ProgressStreams:
    """One stream for each job that is followed. `on_news` is called where a report says what the one before did not.

    Close it with `aclose`.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        on_news: Callable[[JobKey], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._on_news = on_news
        self._clock = clock
        self._streams: dict[JobKey, _Stream] = {}

    def follow(self, key: JobKey, source: Source | None, token: TokenSource) -> None:
        """Follow exactly this source, or none, from now on."""
        stream = self._streams.get(key)
        if stream is not None:
            if stream.source == source:
                return
            stream.stop()
            del self._streams[key]
        if source is not None:
            self._streams[key] = _Stream(self._session, source, token, lambda: self._on_news(key), self._clock)

    def newest(self, key: JobKey) -> ProgressReport | None:
        """The newest report of the source that is followed, if it is fresh."""
        stream = self._streams.get(key)
        if stream is None or stream.report is None or self._clock() - stream.arrived > FRESH_SECONDS:
            return None
        return stream.report

    def last(self, key: JobKey) -> ProgressReport | None:
        """The newest report of the source that is followed, however old."""
        stream = self._streams.get(key)
        return stream.report if stream is not None else None

    async def aclose(self) -> None:
        """End all streams."""
        tasks = [stream.stop() for stream in self._streams.values()]
        self._streams.clear()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Stream:
    def __init__(
        self,
        session: aiohttp.ClientSession,
        source: Source,
        token: TokenSource,
        on_news: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self.source = source
        self.report: ProgressReport | None = None
        self.arrived = 0.0
        self._session = session
        self._token = token
        self._on_news = on_news
        self._clock = clock
        self._task = asyncio.create_task(self._run(), name=f"progress of {source.attempt}")

    def stop(self) -> asyncio.Task[None]:
        self._task.cancel()
        return self._task

    async def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            began = self._clock()
            try:
                await self._read()
            except (aiohttp.ClientError, OSError, ValueError) as error:
                _logger.debug("no progress", url=self.source.url, error=repr(error))
            pause = FIRST_PAUSE_SECONDS if self.arrived > began else min(pause * 2, MAX_PAUSE_SECONDS)
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 -- spreads requests, keeps no secret

    async def _read(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
        headers = {"Authorization": f"Bearer {await self._token()}"}
        async with self._session.get(
            self.source.url, headers=headers, timeout=timeout, allow_redirects=False
        ) as response:
            if response.status != 200:
                raise ValueError(f"HTTP {response.status}")
            buffer = bytearray()
            async for chunk in response.content.iter_any():
                buffer += chunk
                *lines, rest = buffer.split(b"\n")
                buffer = bytearray(rest)
                if len(buffer) > MAX_LINE_BYTES:
                    raise ValueError(f"a report has more than {MAX_LINE_BYTES} bytes")
                for line in lines:
                    self._take(bytes(line))

    def _take(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            report = ProgressReport.model_validate_json(line)
        except ValidationError as error:
            _logger.warning("progress report not understood", url=self.source.url, error=str(error)[:1000])
            return
        if report.attempt != self.source.attempt:
            return
        before, self.report, self.arrived = self.report, report, self._clock()
        if before is None or news(before) != news(report):
            self._on_news()


def news(report: ProgressReport) -> tuple[object, ...]:
    """What of a report may call for a decision: not the step and the loss, which change all the time."""
    return (
        report.first_step_at,
        report.restored,
        report.reports_steps,
        report.checkpoint.problem,
        tuple(
            (worker.index, worker.pod, worker.attempt, worker.launcher, worker.first_failure)
            for worker in report.workers
        ),
    )
