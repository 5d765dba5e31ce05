"""Incidents on their way to the memory service. Pure: which are to be sent, which are taken, which must be kept safe."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from sternpost_operator.resources.training_job_status import Incident

MAX_KEPT = 200
MAX_KEPT_BYTES = 512 * 1024
"""Of the outbox: a ConfigMap has room for 1 MiB."""


@dataclass(frozen=True)
class Letter:
    """An incident and where it goes."""

    url: str
    """Of the memory service."""
    space: str
    platform_space: str
    """Where it goes, too; empty: nowhere."""
    namespace: str
    job: str
    uid: str
    """Of the job."""
    incident: Incident

    @property
    def id(self) -> str:
        """The incident's."""
        return self.incident.id

    def to_wire(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "url": self.url,
            "space": self.space,
            "platformSpace": self.platform_space,
            "namespace": self.namespace,
            "job": self.job,
            "uid": self.uid,
            "incident": self.incident.to_wire(),
        }

    @classmethod
    def from_wire(cls, value: object) -> Letter | None:
        """From JSON; None for anything else."""
        if not isinstance(value, dict):
            return None
        texts = [value.get(name) for name in ("url", "space", "platformSpace", "namespace", "job", "uid")]
        try:
            incident = Incident.model_validate(value.get("incident"))
        except ValidationError:
            return None
        url, space, platform, namespace, job, uid = (text if isinstance(text, str) else "" for text in texts)
        return cls(url, space, platform, namespace, job, uid, incident) if url and space and job else None


class Letters:
    """Letters by incident. Those of a deleted job are in no status any more: they are to be kept safe elsewhere."""

    def __init__(self) -> None:
        self._waiting: dict[str, Letter] = {}
        self._orphans: set[str] = set()
        self._taken: dict[str, set[str]] = {}

    def offer(self, letter: Letter, *, orphan: bool = False) -> None:
        """To be sent, unless it was already."""
        if letter.id not in self._taken.get(letter.uid, ()):
            self._waiting.setdefault(letter.id, letter)
            if orphan:
                self._orphans.add(letter.id)

    def take(self, letter: Letter) -> None:
        """The memory service has it."""
        self._waiting.pop(letter.id, None)
        if letter.id in self._orphans:
            self._orphans.discard(letter.id)
        else:
            self._taken.setdefault(letter.uid, set()).add(letter.id)

    def taken(self, uid: str) -> frozenset[str]:
        """Incidents of a job that the memory service has and the status may forget."""
        return frozenset(self._taken.get(uid, ()))

    def settle(self, uid: str, unsent: Iterable[str]) -> None:
        """The status has only these left."""
        known = self._taken.get(uid)
        if known is not None:
            known &= set(unsent)
            if not known:
                del self._taken[uid]

    def waiting(self) -> list[Letter]:
        """All that are to be sent, the oldest first."""
        return sorted(self._waiting.values(), key=lambda letter: letter.incident.at)

    def orphans(self) -> list[Letter]:
        """Those that only this operator knows of, the oldest first."""
        return [letter for letter in self.waiting() if letter.id in self._orphans]

    def forget(self, uid: str) -> None:
        """The job is gone: what is left of it in here are orphans, or nothing."""
        self._taken.pop(uid, None)
        for letter in [letter for letter in self._waiting.values() if letter.uid == uid]:
            if letter.id not in self._orphans:
                del self._waiting[letter.id]


def packed(letters: Iterable[Letter]) -> str:
    """As the outbox keeps them: the newest that there is room for."""
    lines: list[str] = []
    size = 0
    for letter in reversed(list(letters)):
        line = json.dumps(letter.to_wire(), separators=(",", ":"), ensure_ascii=False)
        size += len(line.encode()) + 1
        if len(lines) == MAX_KEPT or size > MAX_KEPT_BYTES:
            break
        lines.append(line)
    return "\n".join(reversed(lines))


def unpacked(text: str) -> list[Letter]:
    """What `packed` made; lines that are something else are left out."""
    found = []
    for line in text.splitlines():
        try:
            letter = Letter.from_wire(json.loads(line))
        except ValueError:
            continue
        if letter is not None:
            found.append(letter)
    return found
