"""What a node's agent says of itself in `nodes/NAME.json`, and what follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sternpost_operator.cluster.local.json_files import GarbageError, JsonObject, read_object
from sternpost_operator.cluster.local.paths import LocalPaths, check_name
from sternpost_operator.cluster.local.processes import ProcessIdentity, ProcessRecord, boot_id, is_alive

HEARTBEAT_SECONDS = 0.5
STALE_SECONDS = 2.0
"""A heartbeat older than that means the node is not ready."""


@dataclass(frozen=True)
class NodeRecord:
    """One node; times in Unix seconds."""

    name: str
    agent: ProcessIdentity
    session: int
    started_at: float
    heartbeat_at: float
    boot: str

    @property
    def alive(self) -> bool:
        """Whether its agent's process runs."""
        return self.boot == boot_id() and is_alive(self.agent)

    def ready(self, now: float) -> bool:
        """Whether it is alive and said so lately; `now` in Unix seconds."""
        return now - self.heartbeat_at <= STALE_SECONDS and self.alive

    def owns(self, process: ProcessRecord) -> bool:
        """Whether the process is in the agent's session, and not in a later one of the same number."""
        return process.session == self.session and process.identity.start_time >= self.agent.start_time

    def to_object(self) -> JsonObject:
        """As it is on disk."""
        return {
            "name": self.name,
            "pid": self.agent.pid,
            "startedAt": self.started_at,
            "heartbeatAt": self.heartbeat_at,
            "processGroup": self.session,
            "processStartTime": self.agent.start_time,
            "bootId": self.boot,
        }


def parse_node(value: JsonObject) -> NodeRecord:
    """A node as it is on disk; raises `GarbageError`."""
    try:
        record = NodeRecord(
            name=check_name(value["name"]),
            agent=ProcessIdentity(int(value["pid"]), int(value["processStartTime"])),
            session=int(value["processGroup"]),
            started_at=float(value["startedAt"]),
            heartbeat_at=float(value["heartbeatAt"]),
            boot=str(value["bootId"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise GarbageError(f"a node's record is wrong: {error!r}") from error
    times = (record.started_at, record.heartbeat_at)
    if record.agent.pid <= 0 or record.session <= 0 or not all(math.isfinite(t) and 0 <= t < 1e11 for t in times):
        raise GarbageError(f"the record of node {record.name} is out of range")
    return record


def read_node(paths: LocalPaths, name: str) -> NodeRecord | None:
    """The record of a node, None if it never was; raises `GarbageError`, `OSError`."""
    value = read_object(paths.objects / "nodes" / f"{check_name(name)}.json", limit=64 * 1024)
    return None if value is None else parse_node(value)
