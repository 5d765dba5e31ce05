"""The tensors of a generation as people know them: whole, each once, whoever stored which block of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sternpost_checkpoint.errors import FormatError, NotFoundError
from sternpost_checkpoint.format.names import generation_folder
from sternpost_checkpoint.format.table import tensor_bytes
from sternpost_checkpoint.restore.archive import StoredHolder
from sternpost_checkpoint.restore.blocks import Block
from sternpost_checkpoint.restore.reader import GenerationReader
from sternpost_checkpoint.restore.wanted import Wanted, block_of, is_public


@dataclass(frozen=True)
class Item:
    """One whole tensor."""

    name: str
    """ROLE/PATH."""
    role: str
    dtype: str
    shape: tuple[int, ...]
    rank: int | None
    """Whose it is, where each rank has its own; None: everybody's."""
    stored_bytes: int

    @property
    def label(self) -> str:
        """Unique in the generation, for people."""
        return self.name if self.rank is None else f"{self.name}@rank-{self.rank}"

    @property
    def bytes(self) -> int:
        """Of all elements."""
        return tensor_bytes(self.dtype, self.shape)

    def wanted(self, target: memoryview) -> Wanted:
        """What to ask a reader for; `target` has `bytes` bytes."""
        return Wanted(self.name, self.dtype, self.shape, target, rank=self.rank or 0)


@dataclass
class _Found:
    dtype: str
    shape: tuple[int, ...]
    role: str
    stored_bytes: int = 0
    blocks: set[Block] = field(default_factory=set)


def inventory(reader: GenerationReader) -> list[Item]:
    """Every tensor that the generation has stored, by label. Raises FormatError, NotFoundError.

    What the blocks of a tensor do not make up is refused here, before anybody reserves room for it.
    """
    found: dict[tuple[str, int | None], _Found] = {}
    for holder in _holders(reader):
        block, shape = block_of(holder.spec)
        key = (holder.spec.name, None if is_public(holder.spec) else holder.rank)
        entry = found.setdefault(key, _Found(holder.spec.dtype, shape, holder.spec.role))
        if (entry.dtype, entry.shape) != (holder.spec.dtype, shape):
            raise FormatError(f"{holder.part.shard}: {holder.spec.name!r} has another type or shape than elsewhere")
        entry.stored_bytes += holder.stored.stored_bytes
        if block.elements:
            entry.blocks.add(block)
    items = []
    for (name, rank), entry in found.items():
        elements = math.prod(entry.shape)
        if sum(block.elements for block in entry.blocks) != elements:
            where = generation_folder(reader.generation)
            raise FormatError(f"{where}: the stored blocks of {name!r} do not make up a tensor of {list(entry.shape)}")
        items.append(Item(name, entry.role, entry.dtype, entry.shape, rank, entry.stored_bytes))
    return sorted(items, key=lambda item: item.label)


def choose(items: list[Item], name: str) -> Item:
    """The item that `name` means: its label, its name, or its name without the role. Raises NotFoundError."""
    fits: list[Callable[[Item], bool]] = [
        lambda item: item.label == name,
        lambda item: item.name == name,
        lambda item: item.name.partition("/")[2] == name,
    ]
    for fit in fits:
        matching = [item for item in items if fit(item)]
        if len(matching) == 1:
            return matching[0]
        if matching:
            labels = ", ".join(item.label for item in matching[:4])
            raise NotFoundError(f"{name!r} is not one tensor but {len(matching)}: say which: {labels}")
    raise NotFoundError(f"there is no tensor {name!r}; `show --tensors` lists what there is")


def _holders(reader: GenerationReader) -> Iterator[StoredHolder]:
    for part in reader.parts():
        yield from part.holders()
