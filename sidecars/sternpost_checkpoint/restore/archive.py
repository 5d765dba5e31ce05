"""The generations of a storage as a reader sees them: tables by rank, and which parent a rank's deltas need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.errors import FormatError
from sternpost_checkpoint.format.documents import SHARD_HEADER_BYTES, Index, Manifest, StoredTensor
from sternpost_checkpoint.format.names import generation_folder, generation_label
from sternpost_checkpoint.format.shard import check_shard_header
from sternpost_checkpoint.format.table import TensorSpec, parse_table
from sternpost_checkpoint.lineage import Generation


@dataclass(frozen=True)
class StoredHolder:
    """A tensor in a rank's shard."""

    part: RankPart
    stored: StoredTensor

    @property
    def rank(self) -> int:
        """The rank that stored it."""
        return self.part.index.rank

    @property
    def spec(self) -> TensorSpec:
        """Its table entry."""
        return self.part.specs[self.stored.tensor]


@dataclass(frozen=True)
class RankPart:
    """One rank's index, checked."""

    manifest: Manifest
    index: Index

    @property
    def shard(self) -> str:
        """Name of the shard."""
        entry = self.manifest.ranks[self.index.rank]
        return generation_folder(self.manifest.generation) + entry.shard.name

    @cached_property
    def specs(self) -> tuple[TensorSpec, ...]:
        """The rank's table."""
        folder = generation_folder(self.manifest.generation)
        return parse_table(self.index.tensors, folder + self.manifest.ranks[self.index.rank].index.name)

    @cached_property
    def by_tensor(self) -> dict[int, StoredTensor]:
        """What the shard holds, by the index in the table."""
        return {stored.tensor: stored for stored in self.index.stored}

    @cached_property
    def by_name(self) -> dict[str, StoredTensor]:
        """What the shard holds, by name."""
        return {self.specs[stored.tensor].name: stored for stored in self.index.stored}

    def holders(self) -> Iterator[StoredHolder]:
        """What the shard holds, in its order."""
        return (StoredHolder(self, stored) for stored in self.index.stored)


class Archive:
    """Reads manifests and indexes once. Not for several threads: planning is done in one."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._manifests: dict[Generation, Manifest] = {}
        self._parts: dict[tuple[Generation, int], RankPart] = {}

    def manifest(self, generation: Generation) -> Manifest:
        """Raises NotFoundError, FormatError."""
        if generation not in self._manifests:
            self._manifests[generation] = self.catalog.manifest(generation)
        return self._manifests[generation]

    def part(self, generation: Generation, rank: int) -> RankPart:
        """One rank's part; a shard that is cut short is found here. Raises NotFoundError, FormatError."""
        key = (generation, rank)
        if key not in self._parts:
            manifest = self.manifest(generation)
            if not 0 <= rank < manifest.world_size:
                raise FormatError(f"{generation_label(generation)} has no rank {rank}: {manifest.world_size} saved it")
            part = RankPart(manifest, self.catalog.index(manifest, manifest.ranks[rank]))
            size, expected = self.catalog.store.size(part.shard), manifest.ranks[rank].shard.bytes
            if size != expected:
                raise FormatError(
                    f"{part.shard} has {size} bytes where the manifest says {expected}: it is cut or torn"
                )
            head = self.catalog.store.read(part.shard, 0, min(SHARD_HEADER_BYTES, size))
            check_shard_header(head, part.shard)
            self._parts[key] = part
        return self._parts[key]

    def parts(self, generation: Generation) -> Iterator[RankPart]:
        """Every rank's part."""
        for rank in range(self.manifest(generation).world_size):
            yield self.part(generation, rank)

    def parent(self, part: RankPart) -> RankPart:
        """The part that `part`'s deltas are against. Raises NotFoundError, FormatError.

        The chain ends: a parent is older than its child, and the number of generations behind it, which is bounded, is
        smaller.
        """
        base, where = part.index.base, part.shard
        if base is None:
            raise FormatError(f"{where}: it has deltas, but names no parent")
        if base.generation >= part.index.generation:
            raise FormatError(f"{where}: its parent {generation_label(base.generation)} is not older than itself")
        parent = self.part(base.generation, part.index.rank)
        if parent.index.shard_hash != base.shard_hash:
            raise FormatError(f"{where}: its parent {parent.shard} is another one than it was encoded against")
        if parent.index.chain >= part.index.chain:
            raise FormatError(
                f"{where}: its chain of {part.index.chain} is not longer than its parent's of {parent.index.chain}"
            )
        return parent
