"""Keeps which incidents the memory service has taken."""

from __future__ import annotations

from pathlib import Path

import structlog

from sternpost_operator.cluster.local.json_files import GarbageError, read_object, write_object
from sternpost_operator.cluster.local.paths import check_name

_logger = structlog.get_logger(__name__)

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
