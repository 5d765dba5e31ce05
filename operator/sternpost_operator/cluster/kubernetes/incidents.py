"""Brings incidents to the memory service in the background: nothing waits for it, and nothing is lost while it is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from sternpost_operator.cluster.kubernetes.inventory import JobKey
from sternpost_operator.cluster.kubernetes.letters import Letter, Letters
from sternpost_operator.cluster.kubernetes.memory_spaces import MemorySpaces
from sternpost_operator.cluster.kubernetes.outbox import Outbox
from sternpost_operator.cluster.memory_client import MemoryClient
from sternpost_operator.resources.training_job import TrainingJob
from sternpost_operator.resources.training_job_status import Incident

_logger = structlog.get_logger(__name__)

PERIOD_SECONDS = 2.0
"""Between two attempts while something waits."""


class IncidentObserver(Protocol):
    """Is told how it goes."""

    def incident_sent(self, *, taken: bool) -> None:
        """The memory service took an incident, or did not."""
        ...

    def incidents_waiting(self, count: int) -> None:
        """So many are to be sent."""
        ...


class IncidentSender:
    """One task that sends."""

    def __init__(
        self,
        memory: MemoryClient,
        outbox: Outbox,
        *,
        spaces: MemorySpaces,
        observer: IncidentObserver,
        on_taken: Callable[[JobKey], None],
    ) -> None:
        self._memory = memory
        self._outbox = outbox
        self._spaces = spaces
        self._observer = observer
        self._on_taken = on_taken
        self._letters = Letters()
        self._waiting = asyncio.Event()

    def offer(self, job: TrainingJob, incident: Incident) -> None:
        """Send it, some time."""
        self._offer(job, incident, orphan=False)

    def taken(self, uid: str) -> frozenset[str]:
        """Incidents of the job that need not be told any more."""
        return self._letters.taken(uid)

    def settle(self, job: TrainingJob) -> None:
        """The status as it is stored now has forgotten what was taken."""
        self._letters.settle(job.metadata.uid, (each.id for each in job.status.unsent_incidents))

    def job_gone(self, job: TrainingJob) -> None:
        """The job was deleted: what its status still had to tell is kept here, and in the outbox."""
        already = self._letters.taken(job.metadata.uid)
        for incident in job.status.unsent_incidents:
            if incident.id not in already:
                self._offer(job, incident, orphan=True)
        self._letters.forget(job.metadata.uid)

    async def run(self) -> None:
        """Until cancelled."""
        await self._load()
        while True:
            self._observer.incidents_waiting(len(self._letters.waiting()))
            await self._waiting.wait()
            await self._send_all()
            await self._keep_orphans()
            if not self._letters.waiting():
                self._waiting.clear()
                continue
            await asyncio.sleep(PERIOD_SECONDS)

    def _offer(self, job: TrainingJob, incident: Incident, *, orphan: bool) -> None:
        metadata, spaces = job.metadata, self._spaces
        space = spaces.space(job)
        platform = spaces.platform if incident.excluded and spaces.platform != space else ""
        letter = Letter(spaces.url, space, platform, metadata.namespace, metadata.name, metadata.uid, incident)
        if spaces.url:
            self._letters.offer(letter, orphan=orphan)
            self._waiting.set()
        elif not orphan and incident.id not in self._letters.taken(metadata.uid):
            self._letters.take(letter)
            self._on_taken((metadata.namespace, metadata.name))

    async def _send_all(self) -> None:
        for letter in self._letters.waiting():
            if self._memory.waits(letter.url):
                continue
            taken = await self._send(letter)
            self._observer.incident_sent(taken=taken)
            if taken:
                self._letters.take(letter)
                self._on_taken((letter.namespace, letter.job))

    async def _send(self, letter: Letter) -> bool:
        """Whether all who shall have it have it. What is told again changes nothing."""
        if not await self._memory.record(letter.url, letter.space, letter.job, letter.incident):
            return False
        job = f"{letter.namespace}/{letter.job}"
        return not letter.platform_space or await self._memory.record(
            letter.url, letter.platform_space, job, letter.incident
        )

    async def _keep_orphans(self) -> None:
        try:
            await self._outbox.save(self._letters.orphans())
        except OSError as error:
            _logger.warning("incidents of deleted jobs are not kept safe yet", detail=str(error))

    async def _load(self) -> None:
        while True:
            try:
                letters = await self._outbox.load()
            except OSError as error:
                _logger.warning("outbox not readable, trying again", detail=str(error))
                await asyncio.sleep(PERIOD_SECONDS)
                continue
            for letter in letters:
                self._letters.offer(letter, orphan=True)
                self._waiting.set()
            return
