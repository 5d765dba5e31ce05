"""From a slot to this rank's part of a generation in the storage."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import xxhash

from sternpost_checkpoint.codec.base import Codec, by_name
from sternpost_checkpoint.codec.planes import PIECE_BYTES, PlanesCodec
from sternpost_checkpoint.codec.raw import RawCodec
from sternpost_checkpoint.format.documents import Index, StoredTensor
from sternpost_checkpoint.format.dtypes import ITEM_BYTES
from sternpost_checkpoint.format.names import generation_folder, index_name, shard_name
from sternpost_checkpoint.format.table import TensorSpec
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.shm.layout import SlotHeader
from sternpost_checkpoint.shm.slot import Slot
from sternpost_checkpoint.store.base import Store

SHARD_MAGIC = b"STERNSHD\x01\0\0\0\0\0\0\0"
"""Magic, version 1 (u32), zeros."""
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
        yield self._count(SHARD_MAGIC)
        payload = self._slot.payload(self._header)
        for number, spec in enumerate(self._tensors):
            if spec.stored:
                yield from self._tensor(number, spec, payload[spec.offset : spec.offset + spec.bytes])
        # Before the store makes it visible: what a writer got at in between must not have a name.
        self._slot.check_unchanged(self._header)

    def _tensor(self, number: int, spec: TensorSpec, raw: memoryview) -> Iterator[bytes | memoryview]:
        codec, item_bytes = choose_codec(spec, raw), ITEM_BYTES[spec.dtype]
        offset, stored_hash = self.bytes, xxhash.xxh3_128()
        for piece in codec.encode(raw, item_bytes):
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
    item_bytes = ITEM_BYTES[spec.dtype]
    sample = raw[: min(len(raw), PIECE_BYTES // 16)]
    encoded = sum(len(piece) for piece in PlanesCodec().encode(sample, item_bytes))
    return by_name(PlanesCodec.name) if encoded * WORTH_RATIO <= len(sample) else RawCodec()


def finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def persist(store: Store, slot: Slot, header: SlotHeader, job_uid: str) -> Persisted:
    """Store this rank's shard, then its index. Idempotent: the same slot gives the same bytes.

    Raises StoreError, TornSlotError, FormatError; nothing with a name of the format is left then but, at most, a
    shard without an index.
    """
    meta = slot.meta(header)
    folder = generation_folder(Generation(*header.generation))
    writer = _ShardWriter(slot, header, meta.tensors)
    store.put(folder + shard_name(header.rank), writer.pieces())
    payload_hash = xxhash.xxh3_128_hexdigest(slot.payload(header))
    slot.check_unchanged(header)
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
        shard_bytes=writer.bytes,
        shard_hash=writer.hash,
        raw_bytes=writer.raw_bytes,
    )
    index_bytes = store.put(folder + index_name(header.rank), [index.to_bytes()])
    return Persisted(writer.raw_bytes, writer.bytes + index_bytes, payload_hash)


def discard(store: Store, header: SlotHeader) -> None:
    """Remove this rank's part of a generation that could not be finished: the index first, it vouches for the shard."""
    folder = generation_folder(Generation(*header.generation))
    store.delete(folder + index_name(header.rank))
    store.delete(folder + shard_name(header.rank))
