"""Writes the diary of each job as Events, in the background: nothing waits for it."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import structlog

from sternpost_operator.cluster.base import RefusedError
from sternpost_operator.cluster.kubernetes.client import FIELD_MANAGER, KubernetesClient
from sternpost_operator.cluster.kubernetes.errors import ApiError, ExistsError
from sternpost_operator.cluster.kubernetes.paths import EVENTS
from sternpost_operator.operator_process.diary import MAX_MESSAGE, Entry, JobName
from sternpost_operator.resources.base import API_VERSION

_logger = structlog.get_logger(__name__)

MAX_WAITING = 2000
TRIES = 5
PAUSE_SECONDS = 2.0


def event_of(job: JobName, entry: Entry, instance: str) -> dict[str, Any]:
    """The Event object."""
    at = _time(entry.at)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": entry.name(job), "namespace": job.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": "TrainingJob",
            "namespace": job.namespace,
            "name": job.name,
            "uid": job.uid,
        },
        "type": "Warning" if entry.warning else "Normal",
        "reason": entry.reason,
        "message": entry.message if len(entry.message) <= MAX_MESSAGE else f"{entry.message[: MAX_MESSAGE - 1]}…",
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": f"sternpost.dev/{FIELD_MANAGER}",
        "reportingInstance": instance,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }


class EventWriter:
    """One task that POSTs; an Event that is there already was told by an operator before."""

    def __init__(self, client: KubernetesClient, instance: str) -> None:
        self._client = client
        self._instance = instance
        self._waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(MAX_WAITING)

    def tell(self, job: JobName, entry: Entry) -> None:
        """Write it, some time; if there is no room, the log has it."""
        event = event_of(job, entry, self._instance)
        try:
            self._waiting.put_nowait(event)
        except asyncio.QueueFull:
            _logger.warning("no room for an event", job=job.name, message=event["message"])

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._write(await self._waiting.get())

    async def _write(self, event: dict[str, Any]) -> None:
        for number in range(TRIES):
            try:
                await self._client.create(EVENTS, event["metadata"]["namespace"], event)
            except ExistsError:
                return
            except RefusedError as error:
                _logger.info("event refused", detail=str(error))  # the namespace is being deleted, say
                return
            except ApiError as error:
                if error.status == 404:
                    return
                problem: OSError = error
            except OSError as error:
                problem = error
            else:
                return
            _logger.info("event not written, trying again", detail=str(problem))
            await asyncio.sleep(PAUSE_SECONDS * 2**number)


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
