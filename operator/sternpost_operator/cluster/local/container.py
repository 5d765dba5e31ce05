"""One container of a Pod: a process, its log, its exit and when it may start again."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sternpost_operator.cluster.local.agent_log import log
from sternpost_operator.cluster.local.paths import CONTAINER_VARIABLE
from sternpost_operator.cluster.local.processes import end_all, marked

FIRST_BACK_OFF_SECONDS = 0.2
MAX_BACK_OFF_SECONDS = 10.0
HEALTHY_SECONDS = 10.0
"""A container that ran so long starts again with the first back-off."""
LOG_LIMIT_BYTES = 16 * 1024 * 1024
START_ERROR = 128
"""Exit code of a container whose command could not be started, as in Kubernetes."""
_LOOP_REASON_AFTER = 3
_KILL_PATIENCE_SECONDS = 0.3


@dataclass(frozen=True)
class Command:
    """What to start."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    working_dir: Path
    log_file: Path


@dataclass(frozen=True)
class Ended:
    """How a run of the container ended."""

    exit_code: int
    """-N after signal N."""
    reason: str
    message: str
    started_at: float
    finished_at: float

    def to_status(self) -> dict[str, Any]:
        """Kubernetes' ContainerStateTerminated: 128 + N after signal N, with the signal beside it."""
        status: dict[str, Any] = {
            "exitCode": self.exit_code if self.exit_code >= 0 else 128 - self.exit_code,
            "reason": self.reason,
            "startedAt": rfc3339(self.started_at),
            "finishedAt": rfc3339(self.finished_at),
        }
        if self.exit_code < 0:
            status["signal"] = -self.exit_code
        if self.message:
            status["message"] = self.message
        return {"terminated": status}


def rfc3339(seconds: float) -> str:
    """A time in Kubernetes' form, with microseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class Container:
    """A container that is started, watched and ended by whoever calls it.

    Times named `now` are the monotonic clock's seconds, `wall` Unix seconds.
    """

    def __init__(self, name: str, mark: str, command: Command) -> None:
        self.name = name
        self.restarts = 0
        self.ended: Ended | None = None
        """How the last run ended; None before the first one and while one runs."""
        self.last: Ended | None = None
        """How the run before that ended."""
        self.terminating = False
        self._mark = mark
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._started_wall = 0.0
        self._runs = 0
        self._back_off = FIRST_BACK_OFF_SECONDS
        self._not_before = 0.0
        self._leftovers = False
        self._restarts_later = False

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return self._process is not None

    @property
    def succeeded(self) -> bool:
        """Whether its last run ended with 0."""
        return self.ended is not None and self.ended.exit_code == 0

    @property
    def pid(self) -> int | None:
        """Of its main process."""
        return self._process.pid if self._process is not None else None

    @property
    def quiet(self) -> bool:
        """Whether nothing of it is left: neither its process nor one that it started."""
        return self._process is None and not self._leftovers

    def may_start(self, now: float) -> bool:
        """Whether the back-off is over."""
        return self.quiet and now >= self._not_before

    def start(self, now: float, wall: float) -> None:
        """Start a run. A command that cannot be started counts as one that ended at once."""
        if self._runs:
            self.restarts += 1
            self.last = self.ended
        self._runs += 1
        self.ended = None
        self.terminating = False
        self._started, self._started_wall = now, wall
        try:
            self._process = self._spawn()
        except (OSError, ValueError) as error:
            message = f"cannot start {self._command.arguments[0]!r} in {self._command.working_dir}: {error}"
            log("error", "container did not start", container=self._mark, error=message)
            self._finish(START_ERROR, "StartError", message, now, wall)

    def poll(self, now: float, wall: float) -> bool:
        """Collect the exit if there is one; whether anything changed."""
        if self._leftovers:
            return self._end_leftovers()
        if self._process is None:
            return False
        pid = self._process.pid
        # The exit is looked at and only collected after the group was killed: until then its id belongs to nobody else.
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return False
        _signal(os.killpg, pid, signal.SIGKILL)
        code = self._process.wait()
        self._process = None
        reason = "Completed" if code == 0 else "Error"
        self._finish(code, reason, "", now, wall)
        self._leftovers = True
        self._end_leftovers()
        return True

    def terminate(self) -> None:
        """Ask the main process to end, once."""
        if self._process is not None and not self.terminating:
            self.terminating = True
            # Not through Popen, which would collect the exit on the way. Until it is collected, the id is the container's.
            _signal(os.kill, self._process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End all of it; `poll` finds the exit."""
        if self._process is not None:
            _signal(os.killpg, self._process.pid, signal.SIGKILL)
            _signal(os.kill, self._process.pid, signal.SIGKILL)

    def rotate_log(self) -> None:
        """Keep the log's last 16 MiB in a second file. Its writer appends, and so goes on at the beginning."""
        path = self._command.log_file
        try:
            if path.stat().st_size <= LOG_LIMIT_BYTES:
                return
            older = path.with_name(path.name + ".1")
            with path.open("r+b") as source, older.open("wb") as target:
                source.seek(max(0, source.seek(0, os.SEEK_END) - LOG_LIMIT_BYTES))
                while chunk := source.read(1024 * 1024):
                    target.write(chunk)
                source.truncate(0)
        except FileNotFoundError:
            return
        except OSError as error:
            log("warning", "log not rotated", log=str(path), error=str(error))

    def to_status(self, *, waiting_reason: str, ready: bool) -> dict[str, Any]:
        """Kubernetes' ContainerStatus."""
        if self._process is not None:
            state: dict[str, Any] = {"running": {"startedAt": rfc3339(self._started_wall)}}
        elif self.ended is not None and not self._restarts_later:
            state = self.ended.to_status()
        else:
            reason = "CrashLoopBackOff" if self._runs >= _LOOP_REASON_AFTER else waiting_reason
            state = {"waiting": {"reason": reason, "message": self._waiting_message()}}
        last = self.ended if self._restarts_later else self.last
        return {
            "name": self.name,
            "state": state,
            "lastState": last.to_status() if last is not None else {},
            "restartCount": self.restarts,
            "ready": ready,
            "started": self._process is not None,
            "image": "",
            "imageID": "",
            "containerID": f"process://{self._process.pid}" if self._process is not None else "",
        }

    def will_restart(self, *, yes: bool) -> None:
        """Say whether an ended container waits for another run, which its status shows."""
        self._restarts_later = yes and self._process is None and self.ended is not None

    def _waiting_message(self) -> str:
        if self.ended is None:
            return ""
        detail = self.ended.message or f"its last run ended with {self.ended.exit_code}"
        return f"{detail}; its output is in {self._command.log_file}"

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._command.log_file.parent.mkdir(parents=True, exist_ok=True)
        if not self._command.working_dir.is_dir():
            raise FileNotFoundError(f"there is no folder {self._command.working_dir} on this machine")
        descriptor = os.open(
            self._command.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            return subprocess.Popen(
                self._command.arguments,
                env=dict(self._command.environment),
                cwd=self._command.working_dir,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        finally:
            os.close(descriptor)

    def _finish(self, code: int, reason: str, message: str, now: float, wall: float) -> None:
        self.ended = Ended(code, reason, message, self._started_wall, wall)
        if now - self._started >= HEALTHY_SECONDS:
            self._back_off = FIRST_BACK_OFF_SECONDS
        self._not_before = now + self._back_off
        self._back_off = min(self._back_off * 2, MAX_BACK_OFF_SECONDS)

    def _end_leftovers(self) -> bool:
        """When a container's first process ends, all of it ends."""
        test = marked(CONTAINER_VARIABLE, self._mark)
        try:
            end_all(test, deadline_seconds=_KILL_PATIENCE_SECONDS)
        except TimeoutError as error:
            log("warning", "container not ended yet", container=self._mark, error=str(error))
            return False
        self._leftovers = False
        return True


def _signal(send: Callable[[int, int], None], pid: int, number: signal.Signals) -> None:
    try:
        send(pid, number)
    except ProcessLookupError:
        return
    except PermissionError as error:  # a program that changed its user
        log("warning", "process not signalled", pid=pid, signal=number.name, error=str(error))
