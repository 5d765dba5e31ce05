"""Tells the memory service of incidents, and keeps which of them it has taken."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import structlog

from sternpost_operator.cluster.local.json_files import GarbageError, JsonObject, read_object, write_object
from sternpost_operator.cluster.local.paths import check_name
from sternpost_operator.resources.training_job_status import Incident

_logger = structlog.get_logger(__name__)

TIMEOUT_SECONDS = 2.0
SOURCE = "sternpost-operator"
_FIRST_BACK_OFF_SECONDS = 1.0
_MAX_BACK_OFF_SECONDS = 30.0
_MAX_ACKNOWLEDGED = 1000


class AcknowledgedIncidents:
    """Ids of a job's incidents that need not be told again: a small file for each job."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, job: str) -> frozenset[str]:
        """All ids; what cannot be read counts as nothing, for telling an incident again changes nothing."""
        return frozenset(self._read(job))

    def add(self, job: str, incident_id: str) -> None:
        """Remember one; raises `OSError`."""
        ids = self._read(job)
        if incident_id not in ids:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_object(self._path(job), {"ids": [*ids, incident_id][-_MAX_ACKNOWLEDGED:]}, durable=True)

    def _path(self, job: str) -> Path:
        return self._folder / f"{check_name(job)}.json"

    def _read(self, job: str) -> list[str]:
        try:
            value = read_object(self._path(job))
        except GarbageError as error:
            _logger.warning("acknowledged incidents not readable", job=job, error=str(error))
            return []
        ids = value.get("ids") if value is not None else None
        return [item for item in ids if isinstance(item, str)] if isinstance(ids, list) else []


def observation(job: str, incident: Incident) -> JsonObject:
    """The body for `POST /v1/spaces/SPACE/observations`. The node, if one is named, is what the text is about first."""
    entities = [f"node/{incident.node}"] if incident.node else []
    return {
        "observations": [
            {
                "text": incident.text,
                "occurredAt": incident.at.timestamp(),
                "source": SOURCE,
                "entities": [*entities, f"job/{job}"],
                "attributes": {"cause": incident.cause} if incident.cause else {},
            }
        ]
    }


class MemoryClient:
    """The memory service, asked less often while it does not answer."""

    def __init__(self, client: httpx.AsyncClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._not_before: dict[str, float] = {}
        self._back_off: dict[str, float] = {}

    async def record(self, url: str, space: str, job: str, incident: Incident) -> bool:
        """Tell it; whether it has taken the incident. A failure is logged, and the next call tries again."""
        if self._clock() < self._not_before.get(url, 0.0):
            return False
        endpoint = f"{url.rstrip('/')}/v1/spaces/{space}/observations"
        try:
            response = await self._client.post(
                endpoint,
                json=observation(job, incident),
                headers={"Idempotency-Key": incident.id},
                timeout=TIMEOUT_SECONDS,
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._failed(url, incident, repr(error))
            return False
        if not response.is_success:
            self._failed(url, incident, f"{response.status_code} {response.text[:500]}")
            return False
        self._not_before.pop(url, None)
        self._back_off.pop(url, None)
        return True

    def _failed(self, url: str, incident: Incident, problem: str) -> None:
        pause = self._back_off.get(url, _FIRST_BACK_OFF_SECONDS)
        self._not_before[url] = self._clock() + pause
        self._back_off[url] = min(pause * 2, _MAX_BACK_OFF_SECONDS)
        _logger.warning(
            "incident not recorded, trying again", url=url, incident=incident.id, error=problem, seconds=pause
        )
