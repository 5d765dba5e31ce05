"""Having the newest states of this worker in the next worker's memory, whoever the next one is now."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import structlog

from sternpost_checkpoint.errors import CheckpointError
from sternpost_checkpoint.ring.client import PeerClient
from sternpost_checkpoint.ring.members import Members, Peer
from sternpost_checkpoint.ring.metrics import RingMetrics
from sternpost_checkpoint.ring.slots import LocalSlots
from sternpost_checkpoint.shm.layout import SlotHeader

_log = structlog.get_logger()

PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0)
"""After failures, until the next try."""
LOOK_SECONDS = 5.0
"""Between two looks at whether the next worker's process is still the one that took the copies."""


@dataclass
class _Target:
    """The next worker's process, and what it is known to have."""

    uid: str
    instance: str = ""
    copies: set[tuple[int, int]] = field(default_factory=set)
    """Rank and sequence."""
    failures: int = 0
    try_at: float = 0.0
    looked_at: float = 0.0


class Replicator:
    """Pushes; remembers what it has pushed to whom. Thread-safe."""

    def __init__(
        self,
        slots: LocalSlots,
        members: Callable[[], Members | None],
        connect: Callable[[Peer, Members], AbstractContextManager[PeerClient]],
        metrics: RingMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slots = slots
        self._members = members
        self._connect = connect
        self._metrics = metrics
        self._clock = clock
        self._lock = threading.Lock()
        self._target = _Target("")
        self._pushing: dict[int, threading.Lock] = {}
        """By rank: the save's own thread and the background never send the same at once."""

    def push(self, rank: int, index: int, header: SlotHeader) -> bool:
        """Push a slot to the next worker, if there is one and it answered lately; True when it has the copy then.

        The slot is hashed in any case. Never raises CheckpointError or OSError.
        """
        with self._lock:
            alone = self._pushing.setdefault(rank, threading.Lock())
        with alone:
            return self._push(rank, index, header)

    def _push(self, rank: int, index: int, header: SlotHeader) -> bool:
        try:
            state = self._slots.describe(rank, index, header)
        except (CheckpointError, OSError) as error:
            _log.info("a slot is not copied to the next worker", rank=rank, step=header.step, reason=str(error))
            return False
        members = self._members()
        peer = members.next if members is not None else None
        if members is None or peer is None:
            return False
        target = self._target_for(peer)
        if (rank, header.sequence) in target.copies:
            return True
        if self._clock() < target.try_at:
            return False
        started = time.perf_counter()
        try:
            with self._connect(peer, members) as client:
                self._recognise(target, client.instance)
                size = client.push(state)
        except (CheckpointError, OSError) as error:
            self._failed(target, peer, rank, header, error)
            return False
        with self._lock:
            target.copies.add((rank, header.sequence))
            target.failures, target.try_at = 0, 0.0
        self._metrics.pushed_bytes.inc(size)
        self._metrics.push_seconds.set(time.perf_counter() - started)
        self._metrics.pushed_step.set(header.step)
        _log.info("copied to the next worker", rank=rank, step=header.step, worker=peer.index, bytes=size)
        return True

    def is_due(self) -> bool:
        """Whether `catch_up` has something to do: cheap, and without asking anybody."""
        members = self._members()
        peer = members.next if members is not None else None
        if peer is None:
            return False
        target, now = self._target_for(peer), self._clock()
        if now < target.try_at:
            return False
        if target.copies and now - target.looked_at >= LOOK_SECONDS:
            return True
        return any((rank, header.sequence) not in target.copies for rank, _, header in self._wanted())

    def catch_up(self) -> None:
        """Push what the next worker lacks: after a failure, when it is another one, and when it has started again."""
        members = self._members()
        peer = members.next if members is not None else None
        if members is None or peer is None:
            return
        target = self._target_for(peer)
        if target.copies and self._clock() - target.looked_at >= LOOK_SECONDS:
            try:
                with self._connect(peer, members) as client:
                    self._recognise(target, client.instance)
            except (CheckpointError, OSError) as error:
                self._failed(target, peer, -1, None, error)
                return
        for rank, index, header in self._wanted():
            if (rank, header.sequence) not in target.copies and not self.push(rank, index, header):
                return

    def _wanted(self) -> list[tuple[int, int, SlotHeader]]:
        """The newest slots first: they are what a restore would want."""
        return sorted(self._slots.headers(), key=lambda item: -item[2].sequence)

    def _target_for(self, peer: Peer) -> _Target:
        with self._lock:
            if self._target.uid != peer.uid:
                if self._target.uid:
                    _log.info("the next worker is another one now", worker=peer.index, pod=peer.pod)
                self._target = _Target(peer.uid, looked_at=self._clock())
            return self._target

    def _recognise(self, target: _Target, instance: str) -> None:
        with self._lock:
            target.looked_at = self._clock()
            if target.instance != instance:
                if target.copies:
                    _log.info("the next worker's sidecar has started again and holds nothing: copying anew")
                target.instance, target.copies = instance, set()

    def _failed(self, target: _Target, peer: Peer, rank: int, header: SlotHeader | None, error: Exception) -> None:
        with self._lock:
            pause = PAUSES[min(target.failures, len(PAUSES) - 1)]
            target.failures += 1
            target.try_at = self._clock() + pause
        self._metrics.push_failures.inc()
        _log.warning(
            "the next worker has no copy; the save goes on to the storage",
            rank=rank,
            step=header.step if header is not None else None,
            worker=peer.index,
            reason=str(error),
            retry_seconds=pause,
        )
