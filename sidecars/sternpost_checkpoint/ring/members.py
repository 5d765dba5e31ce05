"""Who is in the ring: from attempt.json. Pure, but for reading the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sternpost_checkpoint.shm.files import read_json

MAX_WORKERS = 20_000


@dataclass(frozen=True)
class Peer:
    """A worker's sidecar."""

    index: int
    """Of the worker: it has the ranks `index * ranksPerWorker` and on."""
    uid: str
    """Of the Pod."""
    pod: str
    address: str
    port: int


@dataclass(frozen=True)
class Members:
    """All workers of an attempt, and which of them this is."""

    number: int
    attempt_id: str
    ranks_per_worker: int
    peers: tuple[Peer, ...]
    """Sorted by index; on hold, those of before."""
    own: int | None
    """This Pod's index, None while it has none."""
    running: bool

    @property
    def next(self) -> Peer | None:
        """Who keeps this worker's part; None for a worker alone, or one that has no index."""
        later = self.others()
        return later[0] if later and self.running else None

    def others(self) -> list[Peer]:
        """All but this one; those that come after this one first, then round the ring."""
        own = self.own if self.own is not None else -1
        ahead = [peer for peer in self.peers if peer.index > own]
        return ahead + [peer for peer in self.peers if peer.index < own]

    @property
    def previous_ranks(self) -> range:
        """The ranks of the worker whose part is kept here."""
        others = self.others()
        if not others or self.own is None:
            return range(0)
        first = others[-1].index * self.ranks_per_worker
        return range(first, first + self.ranks_per_worker)


def parse_members(value: dict[str, Any] | None, job_uid: str, pod: str) -> Members | None:
    """The ring that an Attempt object describes; None for another job's or one that cannot be understood."""
    spec = value.get("spec") if value else None
    if not isinstance(spec, dict) or (job_uid and spec.get("jobUid") != job_uid):
        return None
    number, identity = spec.get("number"), spec.get("id")
    if not isinstance(number, int) or not isinstance(identity, str):
        return None
    running = spec.get("action") == "run"
    entries = spec.get("workers" if running else "previousWorkers") or []
    if not isinstance(entries, list) or len(entries) > MAX_WORKERS:
        return None
    peers = sorted((peer for entry in entries if (peer := _peer(entry)) is not None), key=lambda peer: peer.index)
    ranks = spec.get("ranksPerWorker", 1)
    own = next((peer.index for peer in peers if pod and peer.pod == pod), None)
    return Members(number, identity, ranks if isinstance(ranks, int) and ranks > 0 else 1, tuple(peers), own, running)


def read_members(control: Path, job_uid: str, pod: str) -> Members | None:
    """As `parse_members`, from the control folder."""
    return parse_members(read_json(control / "attempt.json"), job_uid, pod)


def _peer(entry: object) -> Peer | None:
    if not isinstance(entry, dict):
        return None
    index, uid, pod = entry.get("index"), entry.get("uid"), entry.get("pod")
    address, port = entry.get("address"), entry.get("ringPort")
    if not isinstance(index, int) or index < 0 or not isinstance(port, int) or not 0 < port < 65536:
        return None
    if not isinstance(uid, str) or not isinstance(pod, str) or not isinstance(address, str) or not address:
        return None
    return Peer(index, uid, pod, address, port)
