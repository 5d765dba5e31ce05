"""Filling buffers from memory: this worker's own, and the peers'. What memory cannot give is left over for the storage."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import structlog
import xxhash

from sternpost_checkpoint.errors import CheckpointError, FormatError
from sternpost_checkpoint.format.dtypes import ITEM_BYTES
from sternpost_checkpoint.format.table import TensorSpec
from sternpost_checkpoint.restore.blocks import copy_overlap
from sternpost_checkpoint.restore.pool import Limits, run_all
from sternpost_checkpoint.restore.wanted import Piece, Wanted, block_of, plan
from sternpost_checkpoint.ring.description import Description
from sternpost_checkpoint.ring.holder import State

_log = structlog.get_logger()

COPIED_BYTES = 2**20
"""Copied and then hashed while it is still in the cache."""


@dataclass(frozen=True)
class MemoryTensor:
    """A tensor in somebody's memory."""

    state: State
    number: int

    @property
    def rank(self) -> int:
        """Whose."""
        return self.state.description.header.rank

    @property
    def spec(self) -> TensorSpec:
        """Its table entry."""
        return self.state.description.meta.tensors[self.number]

    @property
    def digest(self) -> bytes:
        """What its bytes must have."""
        return self.state.description.digests[self.number]


@dataclass
class Filled:
    """What came of it."""

    left: list[Wanted]
    """Not filled."""
    bytes: int = 0
    """Filled."""


def tensors_of(states: Sequence[State]) -> Iterable[MemoryTensor]:
    """Everything held, by tensor: of a tensor that several have, each is first for some."""
    longest = max((len(state.description.held) for state in states), default=0)
    for number in range(longest):
        turn = number % len(states)
        for state in itertools.chain(states[turn:], states[:turn]):
            if number < len(state.description.held) and state.description.held[number]:
                yield MemoryTensor(state, number)


def fill_from_own(states: Sequence[State], wanted: Sequence[Wanted], limits: Limits) -> Filled:
    """Copy from states in this machine's memory; each tensor is verified, and a damaged one is taken from another state."""
    bad: set[tuple[int, int]] = set()
    done = 0
    left = list(wanted)
    while left:
        good = (item for item in tensors_of(states) if (id(item.state), item.number) not in bad)
        chosen = plan(left, good)
        if not chosen.pieces:
            break
        failed = run_all(chosen.pieces, lambda piece: piece.holder.spec.bytes, copy_piece, limits)
        for piece, error in failed:
            bad.add((id(piece.holder.state), piece.holder.number))
            _log.error("a tensor in memory is not used", tensor=piece.holder.spec.name, reason=str(error))
        missing = {id(item) for item, _ in chosen.missing}
        again = {id(use.wanted) for piece, _ in failed for use in piece.uses}
        done += sum(len(item.target) for item in left if id(item) not in missing | again)
        if not again:
            left = [item for item in left if id(item) in missing]
            break
        left = [item for item in left if id(item) in missing | again]
    return Filled(left, done)


def verified_copy(target: memoryview, source: memoryview, digest: bytes, where: str) -> None:
    """Copy and hash what arrived, piece by piece in the cache. Raises FormatError when it is not what it was."""
    hasher = xxhash.xxh3_128()
    to, given = np.frombuffer(target, np.uint8), np.frombuffer(source, np.uint8)
    for start in range(0, len(given), COPIED_BYTES):
        piece = to[start : start + COPIED_BYTES]
        piece[:] = given[start : start + COPIED_BYTES]
        hasher.update(piece.data)
    if hasher.digest() != digest:
        raise FormatError(f"{where} does not match the hash that was taken when it was saved: the memory is damaged")


def copy_piece(piece: Piece[MemoryTensor]) -> None:
    """From this machine's memory to all who want it. Raises FormatError when it is damaged."""
    holder = piece.holder
    where = f"rank {holder.rank}: tensor {holder.spec.name!r}"
    source = holder.state.tensor(holder.number)
    uses = list(piece.uses)
    direct = next((use for use in uses if use.direct), None)
    if direct is not None:
        verified_copy(direct.wanted.target, source, holder.digest, where)
        uses.remove(direct)
        source = direct.wanted.target
    elif xxhash.xxh3_128_digest(source) != holder.digest:
        raise FormatError(f"{where} does not match the hash that was taken when it was saved: the memory is damaged")
    scatter(piece, uses=[use.wanted for use in uses], source=source)


def scatter(piece: Piece[MemoryTensor], uses: Iterable[Wanted], source: memoryview) -> None:
    """Copy the parts of a verified tensor to the buffers that want them."""
    spec = piece.holder.spec
    block, _ = block_of(spec)
    for item in uses:
        copy_overlap(item.target, item.block, source, block, ITEM_BYTES[spec.dtype])


@dataclass
class RemoteState:
    """A state at a peer, described; its bytes come over the connection."""

    peer: int
    """Index of the worker."""
    description: Description

    def tensor(self, number: int) -> memoryview:
        """Not here."""
        raise CheckpointError(f"tensor {number} is at worker {self.peer}")


@dataclass
class Excluded:
    """Peers and tensors that were found wanting, so that nobody asks them again. Thread-safe."""

    peers: set[int] = field(default_factory=set)
    tensors: set[tuple[int, int]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def peer(self, index: int) -> None:
        """Not this one again."""
        with self._lock:
            self.peers.add(index)

    def tensor(self, holder: MemoryTensor) -> None:
        """Not this one again."""
        with self._lock:
            self.tensors.add((id(holder.state), holder.number))

    def allows(self, holder: MemoryTensor) -> bool:
        """Whether it may be asked for."""
        state = holder.state
        with self._lock:
            if isinstance(state, RemoteState) and state.peer in self.peers:
                return False
            return (id(state), holder.number) not in self.tensors
