"""The current attempt, as eagle-eye hands it over in attempt.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sternpost_checkpoint.shm.files import read_json


@dataclass(frozen=True)
class Attempt:
    """The part of an Attempt that fences."""

    number: int
    id: str


class AttemptFile:
    """Reads attempt.json; never goes back to a lower number, ignores other jobs."""

    def __init__(self, control: Path, job_uid: str) -> None:
        self._path = control / "attempt.json"
        self._job_uid = job_uid
        self._seen: tuple[int, int] | None = None
        self.current: Attempt | None = None

    def refresh(self) -> bool:
        """Read the file if it changed; True when the attempt is another one now."""
        try:
            found = self._path.stat()
        except OSError:
            return False  # keeps what it had
        if self._seen == (found.st_ino, found.st_mtime_ns):
            return False
        self._seen = (found.st_ino, found.st_mtime_ns)
        value = read_json(self._path)
        spec = value.get("spec") if value else None
        if not isinstance(spec, dict):
            return False
        number, identity, job_uid = spec.get("number"), spec.get("id"), spec.get("jobUid")
        if not isinstance(number, int) or not isinstance(identity, str):
            return False
        if (self._job_uid and job_uid != self._job_uid) or (self.current and number < self.current.number):
            return False
        attempt = Attempt(number, identity)
        changed = attempt != self.current
        self.current = attempt
        return changed
