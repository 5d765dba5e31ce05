"""`attempt.json`: the Attempt object, checked by hand."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum
from pathlib import Path
from typing import Any, Optional

from sternpost_launcher.json_file import UnusableFileError, parse_object, read_bounded

MAX_BYTES = 16 * 1024 * 1024  # some 200 bytes a worker
MAX_RANKS_PER_WORKER = 1024
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_ADDRESS = re.compile(r"[A-Za-z0-9._:%-]{1,253}")
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,12}))?(?:([Zz])|([+-])(\d\d):(\d\d))",
    re.ASCII,
)


class Action(Enum):
    """What every worker shall do."""

    HOLD = "hold"
    RUN = "run"
    STOP = "stop"


@dataclass(frozen=True)
class Member:
    """A Pod of the attempt."""

    pod: str
    uid: str
    address: str
    eagle_eye_port: int


@dataclass(frozen=True)
class Attempt:
    """What the launcher needs of an Attempt."""

    number: int
    id: str
    action: Action
    job_uid: str = ""
    ranks_per_worker: int = 1
    workers: tuple[Member, ...] = ()
    """At their index."""
    spares: tuple[Member, ...] = ()
    master_address: str = ""
    master_port: int = 0
    complete: bool = False
    """All ranks of all workers have succeeded."""
    save_at_step: Optional[int] = None
    """The ranks are asked for a checkpoint after this step, because a node is about to go."""
    grace_seconds: float = 10.0
    issued_at: float = 0.0
    """Unix seconds."""

    @property
    def world_size(self) -> int:
        """Ranks in all."""
        return len(self.workers) * self.ranks_per_worker

    def worker_index(self, pod: str, uid: str) -> Optional[int]:
        """Index of the worker that this Pod is, or None. An empty `uid` matches any."""
        return next((index for index, member in enumerate(self.workers) if _is(member, pod, uid)), None)

    def is_spare(self, pod: str, uid: str) -> bool:
        """Whether this Pod is one of the spares."""
        return any(_is(member, pod, uid) for member in self.spares)


def _is(member: Member, pod: str, uid: str) -> bool:
    return member.pod == pod and uid in ("", member.uid)


def parse_attempt(content: bytes) -> Attempt:
    """The Attempt in `content`; fields that it does not know are ignored. Raises `UnusableFileError` naming the field."""
    value = parse_object(content)
    if value.get("kind", "Attempt") != "Attempt":
        raise UnusableFileError("kind is not Attempt")
    spec = value.get("spec")
    if not isinstance(spec, dict):
        raise UnusableFileError("spec is not an object")
    try:
        action = Action(_text(spec, "action", r"hold|run|stop"))
    except ValueError as error:
        raise UnusableFileError(str(error)) from None
    attempt = Attempt(
        number=_integer(spec, "number", 1, 2**53),
        id=_text(spec, "id", _ID.pattern),
        action=action,
        job_uid=_text(spec, "jobUid", r"[^\x00-\x1f]{1,253}"),
        ranks_per_worker=_integer(spec, "ranksPerWorker", 1, MAX_RANKS_PER_WORKER, default=1),
        workers=_workers(spec),
        spares=tuple(_member(entry, f"spares[{i}]") for i, entry in enumerate(_list(spec, "spares"))),
        master_address=_text(spec, "masterAddress", rf"(?:{_ADDRESS.pattern})?", default=""),
        master_port=_integer(spec, "masterPort", 0, 65535, default=0),
        complete=_flag(spec, "complete"),
        save_at_step=_save_at_step(spec),
        grace_seconds=_seconds(spec, "graceSeconds", default=10.0),
        issued_at=_time(_text(spec, "issuedAt", r".{1,64}")),
    )
    if action is Action.RUN:
        _check_run(attempt, _integer(spec, "worldSize", 0, 2**31, default=0))
    return attempt


def _check_run(attempt: Attempt, world_size: int) -> None:
    if not attempt.workers:
        raise UnusableFileError("workers is empty in a `run`")
    if world_size != attempt.world_size:
        raise UnusableFileError(f"worldSize is {world_size}, workers times ranksPerWorker is {attempt.world_size}")
    if not attempt.master_address or not attempt.master_port:
        raise UnusableFileError("masterAddress or masterPort is missing in a `run`")


def _workers(spec: dict[str, Any]) -> tuple[Member, ...]:
    entries = _list(spec, "workers")
    members: dict[int, Member] = {}
    for position, entry in enumerate(entries):
        member = _member(entry, f"workers[{position}]")
        members[_integer(entry, "index", 0, len(entries) - 1)] = member
    if len(members) != len(entries):
        raise UnusableFileError("workers has an index twice")
    return tuple(members[index] for index in range(len(entries)))


def _member(entry: object, where: str) -> Member:
    if not isinstance(entry, dict):
        raise UnusableFileError(f"{where} is not an object")
    try:
        return Member(
            pod=_text(entry, "pod", r"[^\x00-\x1f]{1,253}"),
            uid=_text(entry, "uid", r"[^\x00-\x1f]{0,253}"),
            address=_text(entry, "address", _ADDRESS.pattern),
            eagle_eye_port=_integer(entry, "eagleEyePort", 1, 65535),
        )
    except UnusableFileError as error:
        raise UnusableFileError(f"{where}.{error}") from None


def _list(spec: dict[str, Any], name: str) -> list[Any]:
    value = spec.get(name, [])
    if not isinstance(value, list):
        raise UnusableFileError(f"{name} is not a list")
    return value


def _text(spec: dict[str, Any], name: str, pattern: str, default: Optional[str] = None) -> str:
    value = spec.get(name, default)
    if not isinstance(value, str) or re.fullmatch(pattern, value) is None:
        raise UnusableFileError(f"{name} is missing or not as it should be: {str(value)[:80]!r}")
    return value


def _integer(spec: dict[str, Any], name: str, low: int, high: int, default: Optional[int] = None) -> int:
    value = spec.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UnusableFileError(
            f"{name} is not an integer from {low} to {high} but {type(value).__name__} {str(value)[:40]}"
        )
    return value


def _flag(spec: dict[str, Any], name: str) -> bool:
    value = spec.get(name, False)
    if not isinstance(value, bool):
        raise UnusableFileError(f"{name} is not true or false but {str(value)[:40]!r}")
    return value


def _save_at_step(spec: dict[str, Any]) -> Optional[int]:
    """Only a reason to wait a little: what is not as it should be is no reason to refuse the rest."""
    value = spec.get("saveAtStep")
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _seconds(spec: dict[str, Any], name: str, default: float) -> float:
    value = spec.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 86_400:
        raise UnusableFileError(f"{name} is not a number of seconds from 0 to 86400")
    return float(value)


def _time(text: str) -> float:
    """RFC 3339 with any number of fraction digits, which Python before 3.11 does not parse itself."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise UnusableFileError(f"issuedAt is not an RFC 3339 time: {text!r}")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction = float(f"0.{match.group(7) or 0}")
    sign = -1 if match.group(9) == "-" else 1
    offset = timedelta(hours=int(match.group(10) or 0), minutes=int(match.group(11) or 0)) * sign
    try:
        whole = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=timezone.utc) - offset
        result = whole.timestamp() + fraction
    except (ValueError, OverflowError):
        raise UnusableFileError(f"issuedAt is not an RFC 3339 time: {text!r}") from None
    if not math.isfinite(result):
        raise UnusableFileError(f"issuedAt is not an RFC 3339 time: {text!r}")
    return result


class AttemptFile:
    """The file as it changes. What cannot be used is described once in `problem`, and ignored."""

    REREAD_SECONDS = 2.0
    """A file is read again after this long even if it looks unchanged; time stamps are coarse."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._signature: Optional[tuple[int, ...]] = None
        self._read_at = -math.inf
        self.problem = ""
        """Why the file cannot be used now; empty if it can, or is missing."""

    def poll(self, now: float) -> Optional[Attempt]:
        """The Attempt if the file may have changed since the last call and is usable. `now` is monotonic seconds."""
        try:
            stat = self._path.stat()
            signature = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            if signature == self._signature and now - self._read_at < self.REREAD_SECONDS:
                return None
            attempt = parse_attempt(read_bounded(self._path, MAX_BYTES))
        except FileNotFoundError:
            self._signature, self.problem = None, ""
            return None
        except UnusableFileError as error:
            self._signature, self._read_at, self.problem = signature, now, str(error)
            return None
        except OSError as error:
            self._signature, self.problem = None, f"cannot be read: {error.strerror or error}"
            return None
        self._signature, self._read_at, self.problem = signature, now, ""
        return attempt
