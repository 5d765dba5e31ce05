"""Generations in a storage, written by hand from FORMAT.md: any codecs, chains, blocks, world sizes, and damage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash

from sternpost_checkpoint.codec.base import Beside, by_name
from sternpost_checkpoint.format.documents import Base, FileEntry, Index, Manifest, RankEntry, StoredTensor
from sternpost_checkpoint.format.names import generation_folder, index_name, manifest_path, shard_name
from sternpost_checkpoint.format.shard import SHARD_HEADER
from sternpost_checkpoint.format.table import Shard, TensorSpec
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.shm.layout import align
from sternpost_checkpoint.store.base import Store

DTYPES = {np.dtype(np.float32): "float32", np.dtype(np.uint8): "uint8", np.dtype(np.uint16): "bfloat16"}


@dataclass
class Tensor:
    """A tensor of one rank's state."""

    name: str
    values: np.ndarray
    codec: str = "raw"
    replicated: bool = False
    stored: bool = True
    start: tuple[int, ...] | None = None
    whole: tuple[int, ...] | None = None
    base: np.ndarray | None = None
    """Of a delta: the parent's decoded values."""
    companion: str | None = None

    @property
    def raw(self) -> bytes:
        return self.values.tobytes()


@dataclass
class Builder:
    """Puts generations into a store; remembers the shard hashes, for children."""

    store: Store
    hashes: dict[tuple[Generation, int], str] = field(default_factory=dict)
    chains: dict[tuple[Generation, int], int] = field(default_factory=dict)

    def generation(
        self,
        step: int,
        ranks: Sequence[Sequence[Tensor]],
        *,
        run: int = 1,
        parent: Generation | None = None,
        trees: Sequence[dict[str, Any]] | None = None,
        **changes: Any,
    ) -> Generation:
        """Store one. `changes`: fields of the indexes that shall be wrong."""
        generation = Generation(step, run)
        entries = []
        for rank, tensors in enumerate(ranks):
            given = trees[rank] if trees else {}
            entries.append(
                self._rank(generation, rank, len(ranks), tensors, parent=parent, trees=given, changes=changes)
            )
        manifest = Manifest(
            **self._origin(generation, len(ranks)),
            replicated=all(tensor.replicated for tensors in ranks for tensor in tensors),
            weights_hash="0" * 64,
            raw_bytes=0,
            stored_bytes=0,
            bases=[(parent.step, parent.run)] if parent is not None else [],
            chain=max(self.chains[generation, rank] for rank in range(len(ranks))) if parent is not None else 0,
            ranks=entries,
        )
        self.store.put(manifest_path(generation), [manifest.to_bytes()])
        return generation

    @staticmethod
    def _origin(generation: Generation, world: int) -> dict[str, Any]:
        return {
            "step": generation.step,
            "run": generation.run,
            "job_uid": "uid-1",
            "attempt_number": 1,
            "attempt_id": "1-id",
            "world_size": world,
            "saved_at": 1.0,
        }

    def _rank(
        self,
        generation: Generation,
        rank: int,
        world: int,
        tensors: Sequence[Tensor],
        *,
        parent: Generation | None,
        trees: dict[str, Any],
        changes: dict[str, Any],
    ) -> RankEntry:
        specs, offset = [], 0
        for tensor in tensors:
            specs.append(
                TensorSpec(
                    name=tensor.name,
                    role=tensor.name.partition("/")[0],
                    dtype=DTYPES[tensor.values.dtype],
                    shape=tensor.values.shape,
                    offset=offset,
                    bytes=tensor.values.nbytes,
                    replicated=tensor.replicated,
                    stored=tensor.stored,
                    shard=Shard(tensor.whole or (), tensor.start) if tensor.start is not None else None,
                )
            )
            offset = align(offset + tensor.values.nbytes)
        numbers = {tensor.name: number for number, tensor in enumerate(tensors)}
        shard = bytearray(SHARD_HEADER)
        stored = []
        for number, tensor in enumerate(tensors):
            if not tensor.stored:
                continue
            companion = tensors[numbers[tensor.companion]] if tensor.companion else None
            data = b"".join(
                bytes(piece)
                for piece in by_name(tensor.codec).encode(
                    memoryview(tensor.raw),
                    specs[number].dtype,
                    Beside(
                        base=memoryview(tensor.base.tobytes()) if tensor.base is not None else None,
                        companion=memoryview(companion.raw) if companion else None,
                        companion_dtype=specs[numbers[tensor.companion]].dtype if tensor.companion else None,
                    ),
                )
            )
            stored.append(
                StoredTensor(
                    tensor=number,
                    codec=tensor.codec,
                    offset=len(shard),
                    stored_bytes=len(data),
                    raw_hash=xxhash.xxh3_128_hexdigest(tensor.raw),
                    stored_hash=xxhash.xxh3_128_hexdigest(data),
                    delta=tensor.base is not None,
                    companion=numbers[tensor.companion] if tensor.companion else None,
                )
            )
            shard += data
        folder, name = generation_folder(generation), shard_name(rank, f"{rank:016x}")
        shard_hash = xxhash.xxh3_128_hexdigest(bytes(shard))
        has_base = any(tensor.base is not None for tensor in tensors)
        self.hashes[generation, rank] = shard_hash
        self.chains[generation, rank] = self.chains[parent, rank] + 1 if has_base and parent is not None else 0
        fields = {
            **self._origin(generation, world),
            "rank": rank,
            "sequence": generation.step,
            "blocked_seconds": None,
            "memcpy_floor_seconds": None,
            "replicated": all(tensor.replicated for tensor in tensors),
            "trees": trees,
            "tensors": [spec.to_json() for spec in specs],
            "stored": stored,
            "base": Base(step=parent.step, run=parent.run, shard_hash=self.hashes[parent, rank])
            if has_base and parent is not None
            else None,
            "chain": self.chains[generation, rank],
            "shard": name,
            "shard_bytes": len(shard),
            "shard_hash": shard_hash,
            "raw_bytes": sum(tensor.values.nbytes for tensor in tensors if tensor.stored),
        }
        index = Index.model_validate({**fields, **changes}).to_bytes()
        self.store.put(folder + name, [bytes(shard)])
        self.store.put(folder + index_name(rank), [index])
        return RankEntry(
            rank=rank,
            shard=FileEntry(name=name, bytes=len(shard), hash=shard_hash),
            index=FileEntry(name=index_name(rank), bytes=len(index), hash=xxhash.xxh3_128_hexdigest(index)),
            raw_bytes=0,
            blocked_seconds=None,
            memcpy_floor_seconds=None,
        )
