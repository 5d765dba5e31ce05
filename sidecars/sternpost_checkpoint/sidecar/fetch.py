"""A state into a slot, from the nearest memory or the storage, tensor by tensor; every byte verified on the way."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import xxhash

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.errors import CheckpointError, FormatError
from sternpost_checkpoint.format.names import generation_label
from sternpost_checkpoint.format.table import Meta
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.restore.layout import WantedEntry, buffers, lay_out
from sternpost_checkpoint.restore.pool import Limits
from sternpost_checkpoint.restore.reader import GenerationReader, without_random
from sternpost_checkpoint.restore.wanted import Wanted
from sternpost_checkpoint.ring.ring import Restorer, Ring
from sternpost_checkpoint.shm.layout import HEADER_BYTES, SlotHeader, align
from sternpost_checkpoint.shm.slot import SlotWriter, bytes_needed
from sternpost_checkpoint.sidecar.commit import is_committed


@dataclass(frozen=True)
class Fetched:
    """A state that is in a slot now."""

    header: SlotHeader
    committed: bool
    """Nothing is left to do with it: it is in the storage, or it is another state than the one that was saved."""
    sources: dict[str, int] = field(default_factory=dict)
    """Bytes by where they came from: `shared-memory`, `peer`, `storage`."""


@dataclass(frozen=True)
class _Origin:
    """Trees and table of a state, and where it comes from."""

    meta: Meta
    header: SlotHeader
    """Its sizes and its sequence are another slot's."""
    whose: int
    """The rank whose state it is: the one asked for, or one that stands in for it."""


def fetch(
    catalog: Catalog,
    generation: Generation,
    rank: int,
    slot: SlotWriter,
    sequence: int,
    *,
    wanted: Sequence[WantedEntry] = (),
    ring: Ring | None = None,
    limits: Limits | None = None,
) -> Fetched:
    """Fill `slot` with the state of `rank` and publish it under `sequence`.

    Each tensor comes from this worker's own memory, else a peer's, else the storage, whichever first has it undamaged.
    `wanted`: the tensors that shall be blocks. Raises FormatError or NotFoundError for a damaged generation or one that
    does not have what is wanted, StoreError for a storage that does not answer, SharedMemoryError when there is no room.
    """
    limits = limits or Limits()
    reader = GenerationReader(catalog, generation)
    with _restorer(ring, generation, rank) as memory:
        origin = _from_memory(memory, rank) or _from_storage(reader, rank)
        meta = lay_out(origin.meta, wanted)
        if memory is None or not (memory.own or memory.remote):
            # The files alone claim what it needs: they are looked at before the memory is taken.
            reader.check(buffers(meta, origin.whose, memoryview(b"")))
        data = meta.to_bytes()
        slot.ensure(bytes_needed(meta.payload_bytes, len(data)))
        slot.begin()
        view = memoryview(slot.memory)
        payload = view[HEADER_BYTES : HEADER_BYTES + meta.payload_bytes]
        sources = _fill(reader, memory, buffers(meta, origin.whose, payload), limits)
    meta_offset = align(HEADER_BYTES + meta.payload_bytes)
    view[meta_offset : meta_offset + len(data)] = data
    header = replace(
        origin.header,
        sequence=sequence,
        rank=rank,
        world_size=max(origin.header.world_size, rank + 1),
        payload_bytes=meta.payload_bytes,
        meta_offset=meta_offset,
        meta_bytes=len(data),
        meta_hash=xxhash.xxh3_128_digest(data),
    )
    slot.publish(header)
    as_saved = meta.tensors == origin.meta.tensors and origin.whose == rank
    return Fetched(header, not as_saved or _is_committed(catalog, generation), sources)


@contextlib.contextmanager
def _restorer(ring: Ring | None, generation: Generation, rank: int) -> Iterator[Restorer | None]:
    if ring is None:
        yield None
        return
    with ring.restore(generation, rank) as memory:
        yield memory


def _from_memory(memory: Restorer | None, rank: int) -> _Origin | None:
    if memory is None:
        return None
    own = memory.description(rank)
    if own is not None:
        return _Origin(own.meta, own.header, rank)
    other = memory.any_description()
    if other is None or rank < other.header.world_size:
        return None  # it existed: only its own state will do
    if other.header.rank != 0 and not other.meta.replicated:
        return None
    return _Origin(without_random(other.meta), other.header, other.header.rank)


def _from_storage(reader: GenerationReader, rank: int) -> _Origin:
    manifest = reader.manifest
    exists = rank < manifest.world_size
    meta = reader.meta(rank)
    if not exists and not meta.replicated and not any(spec.shard for spec in meta.tensors):
        raise FormatError(
            f"{generation_label(reader.generation)}: rank {rank} has no part: the state was saved by"
            f" {manifest.world_size} ranks, and is neither replicated nor made of blocks"
        )
    whose = rank if exists else 0
    entry = manifest.ranks[whose]
    header = SlotHeader(
        sequence=0,
        step=manifest.step,
        run=manifest.run,
        attempt_number=manifest.attempt_number,
        attempt_id=manifest.attempt_id,
        world_size=manifest.world_size,
        rank=whose,
        payload_bytes=0,
        meta_offset=0,
        meta_bytes=0,
        meta_hash=bytes(16),
        saved_at=manifest.saved_at,
        blocked_seconds=_or_nan(entry.blocked_seconds),
        memcpy_floor_seconds=_or_nan(entry.memcpy_floor_seconds),
    )
    return _Origin(meta, header, whose)


def _fill(reader: GenerationReader, memory: Restorer | None, left: Sequence[Wanted], limits: Limits) -> dict[str, int]:
    sources: dict[str, int] = {}
    if memory is not None:
        for name, fill in (("shared-memory", memory.fill_from_own), ("peer", memory.fill_from_peers)):
            filled = fill(left, limits)
            sources[name] = filled.bytes
            left = filled.left
    stored = [item for item in left if len(item.target)]
    if stored:
        reader.read(stored, limits)
        sources["storage"] = sum(len(item.target) for item in stored)
    return {name: count for name, count in sources.items() if count}


def _is_committed(catalog: Catalog, generation: Generation) -> bool:
    try:
        return is_committed(catalog, generation)
    except CheckpointError:
        return False  # looked at again when it is stored


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
