"""`started.json`: which attempt this Pod has begun, for the launcher that comes after a killed one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from sternpost_launcher.json_file import UnusableFileError, parse_object, read_bounded, write_atomically

MAX_BYTES = 1024 * 1024
FILE_NAME = "started.json"


@dataclass
class RankRecord:
    """A rank that was started."""

    rank: int
    local_rank: int
    pid: int
    start_time: int
    """Clock ticks since boot; tells the rank from a later process with its pid."""
    exit_code: Optional[int] = None
    exited_at: Optional[float] = None


@dataclass
class Started:
    """One attempt as this Pod knows it. Times are Unix seconds."""

    attempt: str
    number: int
    worker: int
    launcher_pid: int
    boot_id: str
    ranks: list[RankRecord] = field(default_factory=list)
    started_at: Optional[float] = None
    terminated_at: Optional[float] = None
    """When the last rank of the attempt before was gone."""
    gone_at: Optional[float] = None
    """When the last of its ranks was gone."""
    outcome: str = ""
    """`succeeded` or `failed` once that is settled."""
    message: str = ""

    def to_json(self) -> dict[str, Any]:
        """As it is written."""
        return {
            "attempt": self.attempt,
            "number": self.number,
            "worker": self.worker,
            "pid": self.launcher_pid,
            "bootId": self.boot_id,
            "startedAt": self.started_at,
            "terminatedAt": self.terminated_at,
            "goneAt": self.gone_at,
            "outcome": self.outcome,
            "message": self.message,
            "ranks": [
                {
                    "rank": rank.rank,
                    "localRank": rank.local_rank,
                    "pid": rank.pid,
                    "startTime": rank.start_time,
                    "exitCode": rank.exit_code,
                    "exitedAt": rank.exited_at,
                }
                for rank in self.ranks
            ],
        }


def read_started(folder: Path) -> Optional[Started]:
    """What an earlier launcher wrote, or None. Raises `UnusableFileError`, also when the file cannot be read."""
    try:
        value = parse_object(read_bounded(folder / FILE_NAME, MAX_BYTES))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnusableFileError(f"cannot be read: {error.strerror or error}") from None
    attempt, outcome, message, ranks = (value.get(name) for name in ("attempt", "outcome", "message", "ranks"))
    if not isinstance(attempt, str) or not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", attempt):
        raise UnusableFileError("attempt is not an attempt's id")
    if outcome not in ("", "succeeded", "failed") or not isinstance(message, str) or not isinstance(ranks, list):
        raise UnusableFileError("outcome, message or ranks is not as it should be")
    return Started(
        attempt=attempt,
        number=_integer(value, "number"),
        worker=_integer(value, "worker"),
        launcher_pid=_integer(value, "pid"),
        boot_id=str(value.get("bootId", ""))[:64],
        started_at=_time(value, "startedAt"),
        terminated_at=_time(value, "terminatedAt"),
        gone_at=_time(value, "goneAt"),
        outcome=outcome,
        message=message[:4096],
        ranks=[_rank(entry) for entry in ranks],
    )


def write_started(folder: Path, started: Started) -> None:
    """Replace the file. Raises `OSError`."""
    write_atomically(folder / FILE_NAME, started.to_json())


def _rank(entry: object) -> RankRecord:
    if not isinstance(entry, dict):
        raise UnusableFileError("a rank is not an object")
    code = entry.get("exitCode")
    return RankRecord(
        rank=_integer(entry, "rank"),
        local_rank=_integer(entry, "localRank"),
        pid=_integer(entry, "pid"),
        start_time=_integer(entry, "startTime"),
        exit_code=code if isinstance(code, int) else None,
        exited_at=_time(entry, "exitedAt"),
    )


def _integer(value: dict[str, Any], name: str) -> int:
    found = value.get(name)
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise UnusableFileError(f"{name} is not a natural number")
    return found


def _time(value: dict[str, Any], name: str) -> Optional[float]:
    found = value.get(name)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not 0 <= found < 1e12:
        raise UnusableFileError(f"{name} is not a time")
    return float(found)
