"""Keeps `started.json`: saved on each change, tried again while the disk is full, settled once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Optional

from sternpost_launcher.log import Log
from sternpost_launcher.started_file import Started, read_started, write_started
from sternpost_launcher.status_file import bounded

RETRY_SECONDS = 1.0
FAILED = "failed"
SUCCEEDED = "succeeded"


class Journal:
    """The attempt that this Pod began last, and what became of it."""

    def __init__(self, folder: Path, log: Log) -> None:
        self._folder = folder
        self._log = log
        self._retry_at: Optional[float] = None
        self.started: Optional[Started] = None

    def load(self) -> None:
        """Take over what an earlier launcher wrote. Raises `UnusableFileError`."""
        self.started = read_started(self._folder)

    def begin(self, started: Started) -> None:
        """From here on it is about this attempt."""
        started.terminated_at = self.last_gone_at
        self.started = started

    @property
    def last_gone_at(self) -> Optional[float]:
        """When the last rank was gone, of the newest attempt that has come so far; Unix seconds."""
        return None if self.started is None else self.started.gone_at or self.started.terminated_at

    def settle(self, outcome: str, message: str) -> None:
        """Record how the attempt ended, unless that is settled otherwise."""
        if self.started is not None and self.started.outcome in ("", outcome):
            self.started.outcome, self.started.message = outcome, bounded(message)
        self.save()

    def note_gone(self, now: float) -> None:
        """Record that none of its ranks is left; Unix seconds."""
        if self.started is not None:
            self.started.gone_at = now
            for record in self.started.ranks:
                record.exited_at = record.exited_at or now
            self.save()

    def save(self) -> None:
        """Write the file; a failure is logged, and `retry` tries again."""
        if self.started is None:
            return
        try:
            write_started(self._folder, self.started)
        except OSError as error:
            problem = f"{error.strerror or error}"
            self._retry_at = time.monotonic() + RETRY_SECONDS
        else:
            problem, self._retry_at = "", None
        self._log.once("started.json cannot be written; it is tried again", problem)

    def retry(self, now: float) -> None:
        """Write the file if that failed a while ago. `now` is monotonic seconds."""
        if self._retry_at is not None and now >= self._retry_at:
            self.save()
