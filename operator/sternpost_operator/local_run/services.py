"""Child processes of a run: started again when they die, each in a session of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import structlog

_log = structlog.get_logger("sternpost.services")

SOUND_SECONDS = 5.0
"""A process that lived so long was started all right."""
MAX_DEATHS = 8
"""Deaths in a row, none of them after `SOUND_SECONDS`, before the run gives up."""
FIRST_PAUSE = 0.1
MAX_PAUSE = 5.0
LOG_TAIL_BYTES = 4096


class ServiceError(Exception):
    """A service does not stay up; the message has the end of its log."""


class Service:
    """One child process that shall always run. Times are seconds of a clock that the caller chooses."""

    def __init__(
        self,
        name: str,
        command: Callable[[], Sequence[str]],
        environment: Mapping[str, str],
        log_file: Path,
        *,
        spawn: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen,
    ) -> None:
        self.name = name
        self.restarts = 0
        self._command = command
        self._environment = dict(environment)
        self._log_file = log_file
        self._spawn = spawn
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._next_start = 0.0
        self._deaths = 0

    @property
    def pid(self) -> int | None:
        """Process id, or None while it is down."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def tick(self, now: float) -> bool:
        """Start it if it shall run and does not; whether a restart took place. Raises `ServiceError`."""
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return False
            self._ended(code, now)
        if now < self._next_start:
            return False
        again = self._deaths > 0
        self._start(now)
        self.restarts += again
        return again

    def _start(self, now: float) -> None:
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        with self._log_file.open("ab") as log:
            # A session of its own: Ctrl-C in the terminal is for the supervisor, which ends its children in order.
            self._process = self._spawn(
                list(self._command()),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                close_fds=True,
            )
        self._started_at = now
        _log.info("service started", service=self.name, pid=self._process.pid)

    def _ended(self, code: int, now: float) -> None:
        self._process = None
        self._deaths = 1 if now - self._started_at >= SOUND_SECONDS else self._deaths + 1
        _log.warning("service died", service=self.name, code=code, deaths=self._deaths)
        if self._deaths >= MAX_DEATHS:
            raise ServiceError(
                f"the {self.name} died {self._deaths} times in a row (exit code {code}); "
                f"the end of {self._log_file}:\n{tail(self._log_file)}"
            )
        self._next_start = now + min(MAX_PAUSE, FIRST_PAUSE * 2 ** (self._deaths - 1))

    def terminate(self) -> None:
        """SIGTERM, if it runs."""
        if self.pid is not None and self._process is not None:
            self._process.terminate()

    def end(self, grace_seconds: float) -> None:
        """SIGTERM, then SIGKILL after the grace; it is gone when this returns."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace_seconds)
        process.kill()
        process.wait()


def tail(path: Path, limit: int = LOG_TAIL_BYTES) -> str:
    """The last lines of a log, at most `limit` bytes of it; empty if there is none."""
    try:
        with path.open("rb") as file:
            return _tail_of(file, limit)
    except OSError:
        return ""


def _tail_of(file: BinaryIO, limit: int) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - limit))
    text = file.read(limit).decode(errors="replace")
    return text if size <= limit else text.partition("\n")[2]
