"""What a generation holds, by the keys that DCP has for it. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sternpost_checkpoint.dcp.tree import Node, Path, flatten_part, tensors_in
from sternpost_checkpoint.errors import FormatError
from sternpost_checkpoint.restore.archive import RankPart
from sternpost_checkpoint.restore.blocks import Block
from sternpost_checkpoint.restore.reader import GenerationReader
from sternpost_checkpoint.restore.wanted import block_of, is_public


@dataclass
class StoredTensor:
    """A whole tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    rank: int
    """Of whom, if each rank has its own: the first that has one."""
    blocks: list[Block] = field(default_factory=list)
    """That make it up, in which it is stored."""


@dataclass(frozen=True)
class Value:
    """A tensor or a plain value."""

    path: Path
    encoded: Any
    part: RankPart
    """Where it was found."""
    tensor: StoredTensor | None

    @property
    def inner(self) -> set[int]:
        """Of a plain value: the tensors in it."""
        return set() if self.tensor is not None else set(tensors_in(self.encoded))


class Contents:
    """All values of a generation: of keys that several ranks have, the first rank's."""

    def __init__(self, reader: GenerationReader) -> None:
        """Reads every rank's index. Raises NotFoundError, FormatError, StoreError."""
        self.reader = reader
        self.values: dict[str, Value] = {}
        blocks = _stored_blocks(reader)
        for part in reader.parts():
            for key, node in flatten_part(part).items():
                if key not in self.values:
                    self.values[key] = Value(node.path, node.encoded, part, self._tensor(part, node, blocks))

    @staticmethod
    def _tensor(part: RankPart, node: Node, blocks: dict[tuple[str, int | None], list[Block]]) -> StoredTensor | None:
        if node.tensor is None:
            bad = [number for number in tensors_in(node.encoded) if number >= len(part.specs)]
            if bad:
                raise FormatError(f"{part.shard}: {node.key!r} names tensor {bad[0]}, which is not in the table")
            return None
        spec = part.specs[node.tensor]
        rank = None if is_public(spec) else part.index.rank
        _, shape = block_of(spec)
        return StoredTensor(spec.name, spec.dtype, shape, part.index.rank, blocks.get((spec.name, rank), []))


def _stored_blocks(reader: GenerationReader) -> dict[tuple[str, int | None], list[Block]]:
    found: dict[tuple[str, int | None], list[Block]] = {}
    for part in reader.parts():
        for holder in part.holders():
            block, _ = block_of(holder.spec)
            known = found.setdefault((holder.spec.name, None if is_public(holder.spec) else holder.rank), [])
            if block not in known and (block.elements or holder.spec.shard is None):
                known.append(block)
    return found
