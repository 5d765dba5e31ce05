"""Generations whose part of this worker is stored, and which wait for their commit."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.shm.layout import SlotHeader

PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds between two looks for the other ranks' files."""
MAX_PENDING = 8
"""For each rank; the oldest are left to the others."""


@dataclass
class PendingCommit:
    """A generation of which this rank's part is stored."""

    rank: int
    generation: Generation
    world_size: int
    header: SlotHeader | None
    tries: int = 0
    next_at: float = 0.0


class PendingCommits:
    """All of them. For several threads."""

    def __init__(self) -> None:
        self._commits: list[PendingCommit] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._commits)

    def add(self, pending: PendingCommit) -> None:
        """Another one."""
        with self._lock:
            of_rank = [other for other in self._commits if other.rank == pending.rank]
            given_up = of_rank[: max(len(of_rank) + 1 - MAX_PENDING, 0)]
            self._commits = [other for other in self._commits if other not in given_up] + [pending]

    def due(self, now: float) -> list[PendingCommit]:
        """Those to be tried at `now`; each is given out once, until `later` or `settle`."""
        with self._lock:
            due = [pending for pending in self._commits if pending.next_at <= now]
            for pending in due:
                pending.next_at = float("inf")
            return due

    def later(self, pending: PendingCommit, now: float) -> None:
        """It cannot be committed yet."""
        with self._lock:
            pending.next_at = now + PAUSES[min(pending.tries, len(PAUSES) - 1)]
            pending.tries += 1

    def settle(self, pending: PendingCommit, *, committed: bool) -> None:
        """It is committed, and older ones of its rank need not be any more; or it never will be."""
        with self._lock:
            self._commits = [
                other
                for other in self._commits
                if other is not pending
                and not (committed and other.rank == pending.rank and other.generation < pending.generation)
            ]
