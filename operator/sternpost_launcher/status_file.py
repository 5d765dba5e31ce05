"""`launcher.json`: what the launcher says of itself, on every change and once a second."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Optional

from sternpost_launcher.json_file import write_atomically
from sternpost_launcher.started_file import RankRecord
from sternpost_launcher.verdict import Verdict

FILE_NAME = "launcher.json"
HEARTBEAT_SECONDS = 1.0
MAX_MESSAGE_BYTES = 2048


class State(Enum):
    """`LauncherState` of the operator's resources."""

    WAITING = "waiting"
    IDLE = "idle"
    PREFLIGHT = "preflight"
    RUNNING = "running"
    STOPPING = "stopping"
    FAILED = "failed"
    SUCCEEDED = "succeeded"


@dataclass
class Status:
    """The content of the file. Times are Unix seconds."""

    state: State = State.WAITING
    attempt: Optional[str] = None
    attempt_number: Optional[int] = None
    worker: Optional[int] = None
    message: str = ""
    terminated_at: Optional[float] = None
    started_at: Optional[float] = None
    ranks: list[RankRecord] = field(default_factory=list)
    preflight: list[Verdict] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As it is written, without `updatedAt`."""
        return {
            "pid": os.getpid(),
            "attempt": self.attempt,
            "attemptNumber": self.attempt_number,
            "worker": self.worker,
            "state": self.state.value,
            "message": bounded(self.message),
            "terminatedAt": self.terminated_at,
            "startedAt": self.started_at,
            "ranks": [
                {
                    "rank": rank.rank,
                    "localRank": rank.local_rank,
                    "pid": rank.pid,
                    "exitCode": rank.exit_code,
                    "exitedAt": rank.exited_at,
                }
                for rank in self.ranks
            ],
            "preflight": [
                {"check": verdict.check, "ok": verdict.ok, "detail": verdict.detail} for verdict in self.preflight
            ],
        }


def bounded(message: str) -> str:
    """At most `MAX_MESSAGE_BYTES` of UTF-8: the beginning and, where a traceback says what happened, the end."""
    content = message.encode("utf-8", "replace")
    if len(content) <= MAX_MESSAGE_BYTES:
        return content.decode("utf-8")
    head, gap = content[:512], " [...] "
    tail = content[-(MAX_MESSAGE_BYTES - len(head) - len(gap)) :]
    return head.decode("utf-8", "ignore") + gap + tail.decode("utf-8", "ignore")


class StatusFile:
    """Writes the file when its content changed or a second has passed."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._written: Optional[dict[str, Any]] = None
        self._written_at = -math.inf
        self.problem = ""
        """Why the last write failed; empty if it did not."""

    def write(self, status: Status, *, wall: float, monotonic: float) -> None:
        """Write if it is due; a failure is left in `problem` and tried again within a second."""
        content = status.to_json()
        due = monotonic - self._written_at >= HEARTBEAT_SECONDS
        if not due and (content == self._written or self.problem):
            return
        self._written_at = monotonic
        try:
            write_atomically(self._path, {**content, "updatedAt": wall})
        except OSError as error:
            self.problem = f"{error.strerror or error}"
        else:
            self.problem = ""
            self._written = content
