"""Filling buffers from peers, several at a time; a peer that fails in the middle is replaced by another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import structlog

from sternpost_checkpoint.errors import CheckpointError, FormatError
from sternpost_checkpoint.restore.pool import Limits, run_all
from sternpost_checkpoint.restore.wanted import Piece, Wanted, plan
from sternpost_checkpoint.ring.client import PeerClient
from sternpost_checkpoint.ring.connections import Connections
from sternpost_checkpoint.ring.holder import State
from sternpost_checkpoint.ring.source import (
    Excluded,
    Filled,
    MemoryTensor,
    RemoteState,
    copy_piece,
    scatter,
    tensors_of,
)
from sternpost_checkpoint.ring.survey import OWN

_log = structlog.get_logger()

BATCH_BYTES = 64 * 2**20
"""Asked for at once."""
STREAMS = 2
"""Connections to one peer at a time: what limits a transfer is the one core that decrypts it."""
STREAM_BYTES = 32 * 2**20
"""Less is not worth another handshake."""
MAX_ROUNDS = 16


@dataclass
class _Errand:
    """What one peer is asked for, by state."""

    peer: int
    pieces: list[Piece[MemoryTensor]] = field(default_factory=list)


def fill_from_peers(
    connections: Connections, states: Sequence[State], wanted: Sequence[Wanted], limits: Limits
) -> Filled:
    """Fill what can be, each tensor verified by its hash. Never raises for a peer's sake.

    `states`: peers', and this worker's own before them: what is wanted may be made up of blocks from both.
    """
    excluded = Excluded()
    left, done = list(wanted), 0
    for _ in range(MAX_ROUNDS):
        chosen = plan(left, (item for item in tensors_of(states) if excluded.allows(item)))
        if not chosen.pieces:
            break
        failed_uses: set[int] = set()

        def run(errand: _Errand, failed_uses: set[int] = failed_uses) -> None:
            failed = _copy(errand, excluded) if errand.peer == OWN else _do(connections, errand, excluded)
            failed_uses.update(id(use.wanted) for piece in failed for use in piece.uses)

        for _, error in run_all(_errands(chosen.pieces), lambda _: BATCH_BYTES, run, limits):
            raise error  # `_do` has dealt with everything that a peer can do wrong
        missing = {id(item) for item, _ in chosen.missing}
        done += sum(len(item.target) for item in left if id(item) not in missing | failed_uses)
        left = [item for item in left if id(item) in missing | failed_uses]
        if not failed_uses:
            break
    return Filled(left, done)


def _errands(pieces: Sequence[Piece[MemoryTensor]]) -> list[_Errand]:
    """One for each peer, or a few of equal size where there is much to get: each has a connection and a thread."""
    by_peer: dict[int, list[Piece[MemoryTensor]]] = {}
    for piece in pieces:
        state = piece.holder.state
        by_peer.setdefault(state.peer if isinstance(state, RemoteState) else OWN, []).append(piece)
    errands = []
    for peer, own in by_peer.items():
        total = sum(piece.holder.spec.bytes for piece in own)
        streams = max(1, min(STREAMS, total // STREAM_BYTES)) if peer != OWN else 1
        split = [_Errand(peer) for _ in range(streams)]
        filled = 0
        for piece in own:
            split[min(filled * streams // max(total, 1), streams - 1)].pieces.append(piece)
            filled += piece.holder.spec.bytes
        errands += [errand for errand in split if errand.pieces]
    return errands


def _copy(errand: _Errand, excluded: Excluded) -> list[Piece[MemoryTensor]]:
    """Returns the pieces that are damaged."""
    failed = []
    for piece in errand.pieces:
        try:
            copy_piece(piece)
        except FormatError as error:
            _log.error("a tensor in memory is not used", tensor=piece.holder.spec.name, reason=str(error))
            excluded.tensor(piece.holder)
            failed.append(piece)
    return failed


def _do(connections: Connections, errand: _Errand, excluded: Excluded) -> list[Piece[MemoryTensor]]:
    """Returns the pieces that were not got."""
    failed: list[Piece[MemoryTensor]] = []
    batches = list(_batches(errand.pieces))
    for number, batch in enumerate(batches):
        try:
            with connections.use(errand.peer) as client:
                wrong = _read(client, batch)
        except CheckpointError as error:
            _log.warning("a peer is not asked any more", worker=errand.peer, reason=str(error))
            excluded.peer(errand.peer)
            return failed + [piece for rest in batches[number:] for piece in rest]
        for piece in wrong:
            _log.error("a peer's tensor is damaged", worker=errand.peer, tensor=piece.holder.spec.name)
            excluded.tensor(piece.holder)
        failed += wrong
    return failed


def _batches(pieces: Sequence[Piece[MemoryTensor]]) -> Iterator[list[Piece[MemoryTensor]]]:
    """Of one state each, in the order of its memory."""
    ordered = sorted(pieces, key=lambda piece: (piece.holder.rank, id(piece.holder.state), piece.holder.number))
    batch: list[Piece[MemoryTensor]] = []
    size = 0
    for piece in ordered:
        other = bool(batch) and batch[0].holder.state is not piece.holder.state
        if batch and (other or size + piece.holder.spec.bytes > BATCH_BYTES or len(batch) >= 10_000):
            yield batch
            batch, size = [], 0
        batch.append(piece)
        size += piece.holder.spec.bytes
    if batch:
        yield batch


def _read(client: PeerClient, batch: Sequence[Piece[MemoryTensor]]) -> list[Piece[MemoryTensor]]:
    targets: list[tuple[int, memoryview]] = []
    for piece in batch:
        direct = next((use for use in piece.uses if use.direct), None)
        size = piece.holder.spec.bytes
        target = direct.wanted.target if direct is not None else np.empty(size, dtype=np.uint8).data
        if len(target) != size:
            raise FormatError(f"{piece.holder.spec.name!r}: a buffer of {len(target)} bytes for {size}")
        targets.append((piece.holder.number, target))
    wrong = set(client.read(batch[0].holder.state.description, targets))
    for piece, (number, target) in zip(batch, targets, strict=True):
        if number not in wrong:
            rest = [use.wanted for use in piece.uses if use.wanted.target is not target]
            scatter(piece, rest, target)
    return [piece for piece in batch if piece.holder.number in wrong]
