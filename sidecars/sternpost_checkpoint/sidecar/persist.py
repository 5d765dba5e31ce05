"""From a slot to this rank's part of a generation in the storage."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

import structlog
import xxhash

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.errors import CheckpointError, FormatError, NotFoundError, StoreError
from sternpost_checkpoint.format.documents import MAX_DOCUMENT_BYTES, Index, parse
from sternpost_checkpoint.format.names import generation_folder, index_name, shard_name
from sternpost_checkpoint.format.table import Meta
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.shm.layout import SlotHeader
from sternpost_checkpoint.shm.slot import Slot
from sternpost_checkpoint.sidecar.encode import Piece
from sternpost_checkpoint.sidecar.encoder import Encoding, RankEncoder
from sternpost_checkpoint.store.base import Store

_log = structlog.get_logger()


@dataclass(frozen=True)
class Persisted:
    """What one call made durable."""

    raw_bytes: int
    stored_bytes: int
    payload_hash: str
    seconds: float = 0.0
    encoding: Encoding | None = None
    """None when an earlier try had stored it all."""


def finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Persist:
    """Makes the saves of one rank durable, one after the other."""

    catalog: Catalog
    encoder: RankEncoder
    job_uid: str

    def __call__(
        self,
        slot: Slot,
        header: SlotHeader,
        *,
        before_index: Callable[[], None] = lambda: None,
        started: Callable[[Encoding], None] = lambda _: None,
    ) -> Persisted:
        """Store this rank's shard, then its index; where the index is there already, an earlier try has done it.

        The index is the only name that two writers of one rank could both want, and it is put if absent: whoever comes
        second takes what the first has stored. `before_index` is called when the shard is there, and may wait; `started` is
        given the encoding before its first piece. Raises StoreError, TornSlotError, FormatError.
        """
        store, generation = self.catalog.store, Generation(*header.generation)
        if stored_before(store, header) is not None:
            payload_hash = xxhash.xxh3_128_hexdigest(slot.payload(header))
            slot.check_unchanged(header)
            self.encoder.stored_before(generation)
            return Persisted(0, 0, payload_hash)
        begun = time.perf_counter()
        meta = slot.meta(header)
        payload = slot.payload(header)
        on_line = self.encoder.look_at(self.catalog, header.rank)
        encoding = self.encoder.begin(meta.tensors, payload, generation, on_line=on_line)
        shard = shard_name(header.rank, secrets.token_hex(8))
        try:
            started(encoding)
            self._put_shard(generation_folder(generation) + shard, slot, header, encoding)
            encoding.durable()
            payload_hash = xxhash.xxh3_128_hexdigest(payload)
            slot.check_unchanged(header)
            before_index()
            won = put_index(store, header, self._index(header, meta, shard, encoding))
        except (CheckpointError, OSError):
            self.encoder.failed(encoding)
            raise
        if not won:
            self.encoder.failed(encoding)
            self.encoder.stored_before(generation)
            return Persisted(0, 0, payload_hash)
        seconds = time.perf_counter() - begun
        self.encoder.stored(encoding, generation, seconds, header.saved_at)
        return Persisted(encoding.raw_bytes, encoding.bytes, payload_hash, seconds, encoding)

    def _put_shard(self, name: str, slot: Slot, header: SlotHeader, encoding: Encoding) -> None:
        def pieces() -> Generator[Piece, None, None]:
            yield from encoding.pieces()
            # Before the store makes it visible: what a writer got at in between must not have a name.
            slot.check_unchanged(header)

        made = pieces()
        try:
            size = self.catalog.store.put(name, made)
            if size != encoding.bytes:
                raise StoreError(f"{self.catalog.store.uri} took {size} bytes of {name}, which has {encoding.bytes}")
        except (CheckpointError, OSError):
            _remove(self.catalog.store, name)
            raise
        finally:
            made.close()  # lets the encoding threads go, whatever the store has left of it

    def _index(self, header: SlotHeader, meta: Meta, shard: str, encoding: Encoding) -> Index:
        return Index(
            step=header.step,
            run=header.run,
            job_uid=self.job_uid,
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
            stored=encoding.stored,
            base=encoding.base,
            chain=encoding.chain,
            shard=shard,
            shard_bytes=encoding.bytes,
            shard_hash=encoding.hash,
            raw_bytes=encoding.raw_bytes,
        )


def put_index(store: Store, header: SlotHeader, index: Index) -> bool:
    """Put the index, which makes the shard count; False when another one was faster.

    The shard is removed when it is certain that it does not count.
    """
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
    return won


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
