"""Other workers' states in this sidecar's memory: two of each rank, so that the older is whole until the newer is."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import xxhash

from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.ring.description import Description
from sternpost_checkpoint.ring.errors import RefusedError
from sternpost_checkpoint.shm.layout import align

KEPT = 2
"""Generations of a rank."""


@dataclass
class Part:
    """A rank's state, as far as it cannot be had from others."""

    description: Description
    memory: mmap.mmap
    offsets: dict[int, int] = field(default_factory=dict)
    """Of the held tensors, by their index in the table."""
    readers: int = 0
    dropped: bool = False

    @property
    def key(self) -> tuple[int, Generation]:
        """Rank and generation."""
        return (self.description.header.rank, self.description.generation)

    def tensor(self, number: int) -> memoryview:
        """The bytes of a held tensor."""
        start = self.offsets[number]
        return memoryview(self.memory)[start : start + self.description.meta.tensors[number].bytes]

    def is_intact(self, number: int) -> bool:
        """Whether a tensor's bytes still have the hash that the saving rank took of them."""
        return xxhash.xxh3_128_digest(self.tensor(number)) == self.description.digests[number]


class Shelf:
    """Keeps parts within a limit. Thread-safe."""

    def __init__(self, limit_bytes: int, is_eligible: Callable[[Generation], bool] = lambda _: True) -> None:
        self._limit = limit_bytes
        self._is_eligible = is_eligible
        """Whether a generation is still on the line of the training; asked before another is given up for it."""
        self._lock = threading.Lock()
        self._parts: dict[tuple[int, Generation], Part] = {}
        self._coming: dict[int, int] = {}
        """Bytes of parts that are being received, by rank."""
        self._spare: dict[int, mmap.mmap] = {}
        """By rank, memory of a part that was given up: faulted in already."""

    @property
    def used_bytes(self) -> int:
        """Memory in use, with what is being received."""
        with self._lock:
            return self._used()

    def parts(self) -> list[Part]:
        """All whole parts."""
        with self._lock:
            return list(self._parts.values())

    def part(self, rank: int, generation: Generation) -> Part | None:
        """One of them."""
        with self._lock:
            return self._parts.get((rank, generation))

    @contextmanager
    def reading(self, part: Part) -> Iterator[None]:
        """Meanwhile its memory is not used for another."""
        with self._lock:
            part.readers += 1
        try:
            yield
        finally:
            with self._lock:
                part.readers -= 1

    @contextmanager
    def receiving(self, description: Description, favoured: Collection[int]) -> Iterator[Part]:
        """Make room and yield an unfilled part, which is kept if the block ends well, and else forgotten.

        `favoured`: the ranks that are kept here by the order of the ring; what is left of others gives way first. Raises
        RefusedError, kind `memory`, when there is no room, and `request` for a rank that is being received already.
        """
        rank, generation, size = description.header.rank, description.generation, _size(description)
        eligible = self._eligible_parts(rank)
        with self._lock:
            if rank in self._coming:
                raise RefusedError("request", f"rank {rank} is being received over another connection")
            self._parts.pop((rank, generation), None)
            self._give_up_own(rank, generation, eligible)
            self._make_room(size, rank, favoured)
            memory = self._spare.pop(rank, None)
            self._coming[rank] = size
        try:
            if memory is None or len(memory) < size:
                memory = mmap.mmap(-1, max(size, mmap.PAGESIZE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            part = Part(description, memory, _offsets(description))
            yield part
            with self._lock:
                self._parts[part.key] = part
        finally:
            with self._lock:
                del self._coming[rank]

    def drop_left_over(self, favoured: Collection[int]) -> list[tuple[int, Generation]]:
        """Drop what was kept for workers that have others now, once those that belong here have something newer."""
        with self._lock:
            own = [generation for rank, generation in self._parts if rank in favoured]
            if not favoured or {rank for rank, _ in self._parts if rank in favoured} != set(favoured):
                return []
            oldest = min(own)
            gone = [key for key in self._parts if key[0] not in favoured and key[1] < oldest]
            for key in gone:
                self._drop(key)
            return gone

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._parts.clear()
            self._spare.clear()

    def _used(self) -> int:
        spare = sum(len(memory) for memory in self._spare.values())
        return sum(len(part.memory) for part in self._parts.values()) + sum(self._coming.values()) + spare

    def _eligible_parts(self, rank: int) -> dict[Generation, bool]:
        # Outside of the lock: it may ask the storage.
        mine = [generation for other, generation in list(self._parts) if other == rank]
        return {generation: self._is_eligible(generation) for generation in mine} if len(mine) >= KEPT else {}

    def _give_up_own(self, rank: int, coming: Generation, eligible: dict[Generation, bool]) -> None:
        """The least valuable of a rank's parts, if there are as many as are kept: abandoned, or older."""
        mine = [key for key in self._parts if key[0] == rank]
        if len(mine) < KEPT:
            return
        key = min(mine, key=lambda key: (eligible.get(key[1], True), key[1]))
        if eligible.get(key[1], True) and key[1] > coming:
            raise RefusedError("request", f"rank {rank} has {KEPT} newer generations here than step {coming.step}")
        self._drop(key, keep_memory=True)

    def _make_room(self, size: int, rank: int, favoured: Collection[int]) -> None:
        spare = self._spare.get(rank)
        if spare is not None and len(spare) >= size:
            return
        self._spare.pop(rank, None)
        for key in sorted((key for key in self._parts if key[0] not in favoured), key=lambda key: key[1]):
            if self._used() + size <= self._limit:
                return
            self._drop(key)
        if self._used() + size > self._limit:
            self._spare.clear()
        if self._used() + size > self._limit:
            raise RefusedError(
                "memory",
                f"{size / 2**20:.0f} MiB of rank {rank} do not fit: {self._used() / 2**20:.0f} of {self._limit / 2**20:.0f}"
                " MiB are used; set spec.checkpoint.peerMemory higher",
            )

    def _drop(self, key: tuple[int, Generation], *, keep_memory: bool = False) -> None:
        part = self._parts.pop(key)
        if keep_memory and part.readers == 0:
            self._spare[key[0]] = part.memory


def _size(description: Description) -> int:
    specs = zip(description.meta.tensors, description.held, strict=True)
    size = sum(align(spec.bytes) for spec, held in specs if held)
    return max(-(-size // mmap.PAGESIZE) * mmap.PAGESIZE, mmap.PAGESIZE)


def _offsets(description: Description) -> dict[int, int]:
    offsets, end = {}, 0
    for number, spec in enumerate(description.meta.tensors):
        if description.held[number]:
            offsets[number] = end
            end += align(spec.bytes)
    return offsets
