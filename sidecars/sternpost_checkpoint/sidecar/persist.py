"""From a slot to this rank's part of a generation in the storage."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import structlog
import xxhash

from sternpost_checkpoint.codec.base import PIECE_BYTES, Codec, by_name
from sternpost_checkpoint.codec.planes import PlanesCodec
from sternpost_checkpoint.codec.raw import RawCodec
from sternpost_checkpoint.errors import CheckpointError, FormatError, NotFoundError
from sternpost_checkpoint.format.documents import MAX_DOCUMENT_BYTES, Index, StoredTensor, parse
from sternpost_checkpoint.format.names import generation_folder, index_name, shard_name
from sternpost_checkpoint.format.shard import SHARD_HEADER
from sternpost_checkpoint.format.table import TensorSpec
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.shm.layout import SlotHeader
from sternpost_checkpoint.shm.slot import Slot
from sternpost_checkpoint.store.base import Store

_log = structlog.get_logger()

SMALL_BYTES = 1024
"""Below it, compression is not worth its headers."""
WORTH_RATIO = 1.02


@dataclass(frozen=True)
class Persisted:
    """What one call made durable."""

    raw_bytes: int
    stored_bytes: int
    payload_hash: str


class _ShardWriter:
    """Encodes a slot piece by piece, and keeps the table of what it has yielded."""

    def __init__(self, slot: Slot, header: SlotHeader, tensors: tuple[TensorSpec, ...]) -> None:
        self._slot = slot
        self._header = header
        self._tensors = tensors
        self._hash = xxhash.xxh3_128()
        self.stored: list[StoredTensor] = []
        self.bytes = 0
        self.raw_bytes = 0

    @property
    def hash(self) -> str:
        """Of everything yielded."""
        return self._hash.hexdigest()

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield the whole shard. Raises TornSlotError at its end when the slot did not stay as it was."""
        yield self._count(SHARD_HEADER)
        payload = self._slot.payload(self._header)
        for number, spec in enumerate(self._tensors):
            if spec.stored:
                yield from self._tensor(number, spec, payload[spec.offset : spec.offset + spec.bytes])
        # Before the store makes it visible: what a writer got at in between must not have a name.
        self._slot.check_unchanged(self._header)

    def _tensor(self, number: int, spec: TensorSpec, raw: memoryview) -> Iterator[bytes | memoryview]:
        codec = choose_codec(spec, raw)
        offset, stored_hash = self.bytes, xxhash.xxh3_128()
        for piece in codec.encode(raw, spec.dtype):
            stored_hash.update(piece)
            yield self._count(piece)
        self.raw_bytes += spec.bytes
        self.stored.append(
            StoredTensor(
                tensor=number,
                codec=codec.name,
                offset=offset,
                stored_bytes=self.bytes - offset,
                raw_hash=xxhash.xxh3_128_hexdigest(raw),
                stored_hash=stored_hash.hexdigest(),
            )
        )

    def _count(self, piece: bytes | memoryview) -> bytes | memoryview:
        self._hash.update(piece)
        self.bytes += len(piece)
        return piece


def choose_codec(spec: TensorSpec, raw: memoryview) -> Codec:
    """Pick the codec from a sample of the tensor: compression must pay."""
    if spec.bytes < SMALL_BYTES:
        return RawCodec()
    sample = raw[: min(len(raw), PIECE_BYTES // 16)]
    encoded = sum(len(piece) for piece in PlanesCodec().encode(sample, spec.dtype))
    return by_name(PlanesCodec.name) if encoded * WORTH_RATIO <= len(sample) else RawCodec()


def finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def persist(store: Store, slot: Slot, header: SlotHeader, job_uid: str) -> Persisted:
    """Store this rank's shard, then its index; where the index is there already, an earlier try has done it.

    The index is the only name that two writers of one rank could both want, and it is put if absent: whoever comes
    second takes what the first has stored. Raises StoreError, TornSlotError, FormatError.
    """
    folder = generation_folder(Generation(*header.generation))
    if stored_before(store, header) is not None:
        payload_hash = xxhash.xxh3_128_hexdigest(slot.payload(header))
        slot.check_unchanged(header)
        return Persisted(0, 0, payload_hash)
    meta = slot.meta(header)
    writer = _ShardWriter(slot, header, meta.tensors)
    shard = shard_name(header.rank, secrets.token_hex(8))
    try:
        store.put(folder + shard, writer.pieces())
        payload_hash = xxhash.xxh3_128_hexdigest(slot.payload(header))
        slot.check_unchanged(header)
    except (CheckpointError, OSError):
        _remove(store, folder + shard)
        raise
    index = Index(
        step=header.step,
        run=header.run,
        job_uid=job_uid,
        attempt_number=header.attempt_number,
        attempt_id=header.attempt_id,
        world_size=header.world_size,
        saved_at=header.saved_at,
        rank=header.rank,
        sequence=header.sequence,
        blocked_seconds=finite(header.blocked_seconds),
        memcpy_floor_seconds=finite(header.memcpy_floor_seconds),
        replicated=meta.replicated,
        trees=meta.trees,
        tensors=[spec.to_json() for spec in meta.tensors],
        stored=writer.stored,
        shard=shard,
        shard_bytes=writer.bytes,
        shard_hash=writer.hash,
        raw_bytes=writer.raw_bytes,
    )
    put_index(store, header, index)
    return Persisted(writer.raw_bytes, writer.bytes, payload_hash)


def put_index(store: Store, header: SlotHeader, index: Index) -> None:
    """Put the index, which makes the shard count. The shard is removed when it is certain that it does not."""
    folder = generation_folder(index.generation)
    try:
        won = store.put_if_absent(folder + index_name(index.rank), index.to_bytes())
    except (CheckpointError, OSError):
        # The store may have done it and failed to say so. Only a clear no makes the shard garbage.
        if store.get_or_none(folder + index_name(index.rank), MAX_DOCUMENT_BYTES) is None:
            _remove(store, folder + index.shard)
        raise
    if not won:
        _remove(store, folder + index.shard)
        if stored_before(store, header) is None:
            raise NotFoundError(f"{folder}{index_name(index.rank)} was there and is gone again")


def stored_before(store: Store, header: SlotHeader) -> Index | None:
    """The index that an earlier try has put, its shard being there; None when there is none.

    Raises FormatError when it belongs to another save, or its shard is not what it says.
    """
    folder = generation_folder(Generation(*header.generation))
    name = folder + index_name(header.rank)
    data = store.get_or_none(name, MAX_DOCUMENT_BYTES)
    if data is None:
        return None
    index = parse(Index, data, name)
    if (index.generation, index.rank) != (Generation(*header.generation), header.rank):
        raise FormatError(f"{name} is about rank {index.rank}, step {index.step}")
    if (index.world_size, index.attempt_id) != (header.world_size, header.attempt_id):
        raise FormatError(
            f"{name} is of attempt {index.attempt_id} with {index.world_size} ranks, this save of attempt"
            f" {header.attempt_id} with {header.world_size}: two trainings write to this storage"
        )
    size = store.size(folder + index.shard)
    if size != index.shard_bytes:
        raise FormatError(f"{folder}{index.shard} has {size} bytes where {name} says {index.shard_bytes}")
    return index


def _remove(store: Store, name: str) -> None:
    try:
        store.delete(name)
    except CheckpointError as error:
        _log.warning("a shard that does not count stays until its generation is collected", reason=str(error))
