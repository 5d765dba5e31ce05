"""Writing generations from elsewhere than shared memory: imports, and users of torch's own save functions.

The same order as the sidecar's: shard, index, manifest, ledger, pointer; nothing is collected.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.codec.base import PIECE_BYTES, Codec, by_name
from sternpost_checkpoint.errors import CheckpointError, FencedError
from sternpost_checkpoint.format.documents import Index, Manifest, StoredTensor
from sternpost_checkpoint.format.names import (
    MANIFEST,
    generation_folder,
    generation_label,
    index_name,
    manifest_path,
    shard_name,
)
from sternpost_checkpoint.format.shard import SHARD_HEADER
from sternpost_checkpoint.format.table import TensorSpec
from sternpost_checkpoint.lineage import Generation, newest
from sternpost_checkpoint.sidecar.attempt import Attempt
from sternpost_checkpoint.sidecar.commit import advance_latest, build_manifest, check_eligible, write_ledger
from sternpost_checkpoint.sidecar.registration import register

SMALL_BYTES = 1024
"""Below it, compression is not worth its headers."""
WORTH_RATIO = 1.02

Data = Callable[[], memoryview]
"""Gives the bytes of a tensor when they are needed; they are dropped after use."""


@dataclass(frozen=True)
class Origin:
    """Who saves: of the job that this process belongs to, if any."""

    job_uid: str
    attempt: Attempt

    @classmethod
    def of(cls, environ: Mapping[str, str] = os.environ) -> Origin:
        """From the environment that a job's ranks have."""
        return cls(
            environ.get("STERNPOST_JOB_UID", ""),
            Attempt(int(environ.get("STERNPOST_ATTEMPT_NUMBER") or 0), environ.get("STERNPOST_ATTEMPT", "")),
        )


@dataclass(frozen=True)
class Part:
    """What one rank saves."""

    generation: Generation
    rank: int
    world_size: int
    specs: Sequence[TensorSpec]
    data: Sequence[Data]
    """By place in `specs`; asked for only where the spec is `stored`."""
    trees: dict[str, Any]
    replicated: bool
    saved_at: float


def next_step(catalog: Catalog) -> int:
    """One behind the newest generation that is on the current line."""
    last = _newest(catalog)
    return last.step + 1 if last is not None else 1


def begin_run(catalog: Catalog, origin: Origin, step: int, *, restored: Generation | None, token: str) -> int:
    """Register a run that goes on from `restored` and will save `step`; the same token registers once.

    Without `restored` it goes on from the newest generation. Raises CheckpointError when that one is not older than
    `step`: a run that began before it would give it up, and nobody has said that this is meant.
    """
    if restored is None:
        restored = _newest(catalog)
        if restored is not None and restored.step >= step and not _known(catalog, token):
            raise CheckpointError(
                f"step {step} is not behind {generation_label(restored)}, the newest in {catalog.store.uri}: give a later"
                " step, another storage, or the step that this state goes on from (what lies beyond it is given up)"
            )
    return register(
        catalog,
        job_uid=origin.job_uid,
        attempt=origin.attempt,
        current=None,
        restored_step=restored.step if restored is not None else 0,
        restored_run=restored.run if restored is not None else None,
        token=token,
    )


def write_part(catalog: Catalog, part: Part, origin: Origin) -> Index:
    """Store a rank's shard, then its index. Raises FencedError when the rank's part is there already, StoreError."""
    folder = generation_folder(part.generation)
    name = shard_name(part.rank, secrets.token_hex(8))
    shard = _Shard(part)
    catalog.store.put(folder + name, shard.pieces())
    index = Index(
        step=part.generation.step,
        run=part.generation.run,
        job_uid=origin.job_uid,
        attempt_number=origin.attempt.number,
        attempt_id=origin.attempt.id,
        world_size=part.world_size,
        saved_at=part.saved_at,
        rank=part.rank,
        sequence=0,
        blocked_seconds=None,
        memcpy_floor_seconds=None,
        replicated=part.replicated,
        trees=part.trees,
        tensors=[spec.to_json() for spec in part.specs],
        stored=shard.stored,
        shard=name,
        shard_bytes=shard.bytes,
        shard_hash=shard.hash,
        raw_bytes=shard.raw_bytes,
    )
    if not catalog.store.put_if_absent(folder + index_name(part.rank), index.to_bytes()):
        catalog.store.delete(folder + name)
        raise FencedError(
            f"{folder}{index_name(part.rank)} is there already: somebody else saves this step of this run"
        )
    return index


def commit(catalog: Catalog, generation: Generation, world_size: int) -> Manifest:
    """Make the generation complete. Raises FencedError, FormatError, StoreError; nothing is complete then."""
    files = catalog.files_of(generation)
    missing = [rank for rank in range(world_size) if index_name(rank) not in files]
    if missing:
        raise FencedError(
            f"{generation_label(generation)}: the part of rank {missing[0]} is not in {catalog.store.uri}"
        )
    manifest, _ = build_manifest(catalog.store, generation, world_size, files)
    check_eligible(catalog, generation)
    if MANIFEST not in files:
        catalog.store.put_if_absent(manifest_path(generation), manifest.to_bytes())
    write_ledger(catalog.store, manifest)
    advance_latest(catalog, manifest)
    return manifest


def write_whole(
    catalog: Catalog, step: int | None, specs: Sequence[TensorSpec], data: Sequence[Data], trees: dict[str, Any]
) -> Manifest:
    """Store a state of a single rank as a generation of its own run. Raises CheckpointError."""
    origin = Origin("", Attempt(0, ""))
    step = next_step(catalog) if step is None else step
    run = begin_run(catalog, origin, step, restored=None, token=secrets.token_hex(16))
    generation = Generation(step, run)
    part = Part(generation, 0, 1, specs, data, trees, replicated=True, saved_at=time.time())
    write_part(catalog, part, origin)
    return commit(catalog, generation, 1)


def choose_codec(raw: memoryview, dtype: str) -> Codec:
    """Byte planes where a sample says that they pay."""
    planes = by_name("zstd-planes")
    if len(raw) < SMALL_BYTES:
        return by_name("raw")
    sample = raw[: min(len(raw), PIECE_BYTES // 16)]
    encoded = sum(len(piece) for piece in planes.encode(sample, dtype))
    return planes if encoded * WORTH_RATIO <= len(sample) else by_name("raw")


class _Shard:
    """Encodes tensor by tensor, and keeps the table of what it has yielded."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._hash = xxhash.xxh3_128()
        self.stored: list[StoredTensor] = []
        self.bytes = 0
        self.raw_bytes = 0

    @property
    def hash(self) -> str:
        return self._hash.hexdigest()

    def pieces(self) -> Iterator[bytes | memoryview]:
        yield self._count(SHARD_HEADER)
        for number, spec in enumerate(self._part.specs):
            if spec.stored:
                yield from self._tensor(number, spec)

    def _tensor(self, number: int, spec: TensorSpec) -> Iterator[bytes | memoryview]:
        raw = self._part.data[number]()
        if len(raw) != spec.bytes:
            raise CheckpointError(f"{spec.name!r} has {len(raw)} bytes where {spec.bytes} were planned")
        codec = choose_codec(raw, spec.dtype)
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
                reason="from a sample: the smaller of raw and byte planes",
            )
        )

    def _count(self, piece: bytes | memoryview) -> bytes | memoryview:
        self._hash.update(piece)
        self.bytes += len(piece)
        return piece


def _newest(catalog: Catalog) -> Generation | None:
    return newest((files.generation for files in catalog.generations() if files.complete), catalog.runs())


def _known(catalog: Catalog, token: str) -> bool:
    return any(document.token == token for document in catalog.run_documents())
