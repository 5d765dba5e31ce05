"""From the storage into a slot, every byte verified on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import xxhash

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.codec.base import by_name
from sternpost_checkpoint.errors import FormatError
from sternpost_checkpoint.format.documents import Index, Manifest, StoredTensor
from sternpost_checkpoint.format.names import generation_folder
from sternpost_checkpoint.format.table import Meta, TensorSpec, parse_table
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.shm.layout import HEADER_BYTES, SlotHeader, align
from sternpost_checkpoint.shm.slot import SlotWriter, bytes_needed
from sternpost_checkpoint.store.base import Store

MAX_EXPANSION = 4096
"""Stored bytes may grow by at most so much; zstd reaches a few thousand on zeros."""


@dataclass(frozen=True)
class Piece:
    """A tensor to fetch: where it is, and what it must be."""

    shard: str
    spec: TensorSpec
    stored: StoredTensor


def read_indexes(catalog: Catalog, manifest: Manifest) -> list[Index]:
    """All ranks' indexes, checked against the manifest."""
    return [catalog.index(manifest, entry) for entry in manifest.ranks]


def pieces_of(manifest: Manifest, index: Index) -> Iterator[Piece]:
    """What one rank's shard holds."""
    folder = generation_folder(manifest.generation)
    specs = parse_table(index.tensors, folder + manifest.ranks[index.rank].index.name)
    for stored in index.stored:
        spec = specs[stored.tensor]
        if spec.bytes > MAX_EXPANSION * max(stored.stored_bytes, 1):
            raise FormatError(f"{folder}{index.shard}: {spec.name!r} grows beyond all reason")
        yield Piece(folder + index.shard, spec, stored)


def fetch_piece(store: Store, piece: Piece, target: memoryview) -> None:
    """Read one tensor into `target`, which has its size. Raises FormatError naming the file and the tensor."""
    where = f"{piece.shard}: tensor {piece.spec.name!r}"
    stored = store.read(piece.shard, piece.stored.offset, piece.stored.stored_bytes)
    if xxhash.xxh3_128_hexdigest(stored) != piece.stored.stored_hash:
        raise FormatError(f"{where}: the stored bytes do not match their hash, the file is damaged")
    try:
        by_name(piece.stored.codec).decode(memoryview(stored), target, piece.spec.dtype)
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from error
    if xxhash.xxh3_128_hexdigest(target) != piece.stored.raw_hash:
        raise FormatError(f"{where}: the decoded bytes do not match their hash")


def check_shard_sizes(store: Store, manifest: Manifest) -> None:
    """Find a truncated shard before anything is read."""
    for entry in manifest.ranks:
        name = generation_folder(manifest.generation) + entry.shard.name
        size = store.size(name)
        if size != entry.shard.bytes:
            raise FormatError(f"{name} has {size} bytes where the manifest says {entry.shard.bytes}: it is cut or torn")


def meta_for(indexes: list[Index], rank: int) -> Meta:
    """The meta of rank `rank`; a rank that did not exist then gets rank 0's, without its random states.

    Raises FormatError when the state was not replicated and this rank did not exist.
    """
    own = indexes[rank] if rank < len(indexes) else None
    source = own or indexes[0]
    specs = parse_table(source.tensors, f"rank {source.rank}")
    if own is not None:
        return Meta(source.replicated, source.trees, specs)
    if not source.replicated:
        raise FormatError(f"rank {rank} has no part: the state was saved by {len(indexes)} ranks and is not replicated")
    trees = {role: tree for role, tree in source.trees.items() if role != "random"}
    kept, offset = [], 0
    # The tensors of the random states stand last in the table, so that the others keep their indexes.
    for spec in specs:
        if spec.role != "random":
            kept.append(replace(spec, offset=offset))
            offset = align(offset + spec.bytes)
    if [spec.name for spec in kept] != [spec.name for spec in specs[: len(kept)]]:
        raise FormatError("the random states do not stand last in the table")
    return Meta(replicated=True, trees=trees, tensors=tuple(kept))


def fetch(catalog: Catalog, generation: Generation, rank: int, slot: SlotWriter, sequence: int) -> SlotHeader:
    """Fill `slot` with the state of `rank` and publish it under `sequence`.

    Raises FormatError or NotFoundError for a damaged generation, StoreError for a storage that does not answer,
    SharedMemoryError when there is no room.
    """
    manifest = catalog.manifest(generation)
    check_shard_sizes(catalog.store, manifest)
    indexes = read_indexes(catalog, manifest)
    meta = meta_for(indexes, rank)
    sources: dict[str, Piece] = {}
    for index in indexes:
        for piece in pieces_of(manifest, index):
            if piece.spec.replicated or index.rank == (rank if rank < len(indexes) else 0):
                sources[piece.spec.name] = piece
    data = meta.to_bytes()
    payload_bytes = meta.payload_bytes
    slot.ensure(bytes_needed(payload_bytes, len(data)))
    slot.begin()
    memory = memoryview(slot.memory)
    for spec in meta.tensors:
        found = sources.get(spec.name)
        if found is None or (found.spec.dtype, found.spec.shape) != (spec.dtype, spec.shape):
            raise FormatError(f"{generation_folder(generation)}: no rank has stored {spec.name!r} as it must be")
        start = HEADER_BYTES + spec.offset
        fetch_piece(catalog.store, found, memory[start : start + spec.bytes])
    meta_offset = align(HEADER_BYTES + payload_bytes)
    memory[meta_offset : meta_offset + len(data)] = data
    header = SlotHeader(
        sequence=sequence,
        step=manifest.step,
        run=manifest.run,
        attempt_number=manifest.attempt_number,
        attempt_id=manifest.attempt_id,
        world_size=max(manifest.world_size, rank + 1),
        rank=rank,
        payload_bytes=payload_bytes,
        meta_offset=meta_offset,
        meta_bytes=len(data),
        meta_hash=xxhash.xxh3_128_digest(data),
        saved_at=manifest.saved_at,
        blocked_seconds=float("nan"),
        memcpy_floor_seconds=float("nan"),
    )
    slot.publish(header)
    return header
