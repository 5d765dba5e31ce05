"""The local control plane: one JSON file per object, as described in docs/contracts.md."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import structlog

from sternpost_eagle_eye.attempt import MAX_ATTEMPT_BYTES
from sternpost_eagle_eye.config import ConfigError
from sternpost_eagle_eye.control_plane.attempt_document import AttemptDocument, parse_attempt
from sternpost_eagle_eye.files import Signature, read_bounded, signature, write_whole
from sternpost_eagle_eye.report import Anomaly

POLL_SECONDS = 0.1
MAX_ANOMALY_BYTES = 64 * 1024

log = structlog.get_logger()


def folder_of(uri: str) -> Path:
    """The folder of a `file:///…` URI. Raises ConfigError for anything else."""
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise ConfigError(f"STERNPOST_CONTROL_PLANE={uri!r}: expected file:///absolute/path")
    return Path(unquote(parts.path))


class FolderControlPlane:
    """Files are polled: a rename is seen within a tenth of a second, on any file system."""

    def __init__(self, folder: Path, job: str, job_uid: str, poll_seconds: float = POLL_SECONDS) -> None:
        self._attempt_path = folder / "attempts" / f"{job}.json"
        self._anomalies = folder / "anomalies" / job
        self._job_uid = job_uid
        self._poll_seconds = poll_seconds

    async def attempts(self) -> AsyncIterator[AttemptDocument]:
        """Garbage, and the Attempt of another job of that name, are passed over with one warning."""
        seen: Signature | None = None
        while True:
            try:
                now = signature(self._attempt_path)
                if now is not None and now != seen:
                    seen = now
                    document = self._read()
                    if document is not None:
                        yield document
            except (OSError, ValueError) as error:
                log.warning(
                    "attempt ignored, the one before stands", path=str(self._attempt_path), error=str(error)[:500]
                )
            await asyncio.sleep(self._poll_seconds)

    async def current(self) -> AttemptDocument | None:
        """Raises OSError when the file cannot be read, or is garbage."""
        try:
            return self._read()
        except ValueError as error:
            raise OSError(f"{self._attempt_path}: {error}") from error

    async def write_anomaly(self, anomaly: Anomaly) -> None:
        """Replaces the file in one step; raises OSError."""
        self._anomalies.mkdir(parents=True, exist_ok=True)
        path = self._anomalies / f"{anomaly.name}.json"
        manifest = anomaly.manifest
        first_seen = _first_seen(path)
        if first_seen is not None and first_seen < manifest["spec"]["firstSeen"]:
            manifest = manifest | {"spec": manifest["spec"] | {"firstSeen": first_seen}}
        write_whole(path, json.dumps(manifest, indent=1).encode())

    async def aclose(self) -> None:
        """Nothing is held."""

    def _read(self) -> AttemptDocument | None:
        try:
            content = read_bounded(self._attempt_path, MAX_ATTEMPT_BYTES)
        except FileNotFoundError:
            return None
        return parse_attempt(content, self._job_uid)


def _first_seen(path: Path) -> str | None:
    """RFC 3339 in UTC, which sorts as text; None if there is no such object, or none that can be read."""
    try:
        value: Any = json.loads(read_bounded(path, MAX_ANOMALY_BYTES))
        first_seen = value["spec"]["firstSeen"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return first_seen if isinstance(first_seen, str) and first_seen.endswith("Z") else None
