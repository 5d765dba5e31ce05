"""What a reader asks for, and which stored tensors make it up. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from sternpost_checkpoint.errors import FormatError
from sternpost_checkpoint.format.dtypes import ITEM_BYTES
from sternpost_checkpoint.format.table import TensorSpec
from sternpost_checkpoint.restore.blocks import Block, covers


@dataclass(frozen=True)
class Wanted:
    """A buffer to fill: a tensor, or a block of one."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    """Of the buffer."""
    target: memoryview
    """Writable, dense, C order, `shape` elements of `dtype`."""
    rank: int = 0
    """Whose, where every rank has a tensor of its own under this name."""
    start: tuple[int, ...] | None = None
    whole: tuple[int, ...] | None = None
    """Of a block: its first element in, and the extents of, the whole tensor. None: all of the tensor."""

    @property
    def block(self) -> Block:
        """Its place in the whole tensor."""
        return Block(self.start, self.shape) if self.start is not None else Block.whole(self.shape)

    @property
    def global_shape(self) -> tuple[int, ...]:
        """The whole tensor's extents."""
        return self.whole if self.whole is not None else self.shape


class HasSpec(Protocol):
    """A tensor that can be had: in a shard, in a slot, at a peer."""

    @property
    def rank(self) -> int:
        """Of the table that `spec` is from."""

    @property
    def spec(self) -> TensorSpec:
        """Its table entry."""


HolderT = TypeVar("HolderT", bound=HasSpec)


@dataclass(frozen=True)
class Use:
    """Which part of a buffer a piece fills."""

    wanted: Wanted
    direct: bool
    """The piece is what is wanted, element for element: it can be decoded in place."""


@dataclass
class Piece(Generic[HolderT]):
    """A tensor to get, once, for everybody who needs it."""

    holder: HolderT
    uses: list[Use] = field(default_factory=list)


@dataclass
class Plan(Generic[HolderT]):
    """What to get, and what cannot be had, with the reason."""

    pieces: list[Piece[HolderT]]
    missing: list[tuple[Wanted, str]]


def block_of(spec: TensorSpec) -> tuple[Block, tuple[int, ...]]:
    """The block that a table entry holds, and the extents of the whole tensor."""
    if spec.shard is None:
        return Block.whole(spec.shape), spec.shape
    return Block(spec.shard.start, spec.shape), spec.shard.shape


def is_public(spec: TensorSpec) -> bool:
    """Whether the name means the same tensor for all ranks."""
    return spec.replicated or spec.shard is not None


def plan(wanted: Iterable[Wanted], holders: Iterable[HolderT], *, dry: bool = False) -> Plan[HolderT]:
    """Choose what to read: of equal holders the first, so put the nearest first.

    A tensor that each rank has for itself comes from `Wanted.rank` alone. Raises FormatError for a target that does
    not have the size of what is asked for; `dry`: there are no targets yet.
    """
    public: dict[str, list[HolderT]] = {}
    private: dict[tuple[str, int], HolderT] = {}
    for holder in holders:
        if is_public(holder.spec):
            public.setdefault(holder.spec.name, []).append(holder)
        else:
            private.setdefault((holder.spec.name, holder.rank), holder)
    pieces: dict[int, Piece[HolderT]] = {}
    missing: list[tuple[Wanted, str]] = []
    for item in wanted:
        _check_target(item, dry=dry)
        if item.block.elements == 0:
            continue
        own = private.get((item.name, item.rank))
        chosen = _choose(item, [own] if own is not None else public.get(item.name, []))
        if isinstance(chosen, str):
            missing.append((item, chosen))
            continue
        for holder, direct in chosen:
            pieces.setdefault(id(holder), Piece(holder)).uses.append(Use(item, direct))
    return Plan(list(pieces.values()), missing)


def _choose(item: Wanted, candidates: Sequence[HolderT]) -> list[tuple[HolderT, bool]] | str:
    if not candidates:
        return f"no rank has stored {item.name!r}"
    fitting = []
    for holder in candidates:
        block, whole = block_of(holder.spec)
        if holder.spec.dtype != item.dtype or whole != item.global_shape:
            continue
        if block == item.block:
            return [(holder, True)]
        fitting.append((holder, block))
    if not fitting:
        first = candidates[0].spec
        return (
            f"{item.name!r} is stored as {first.dtype} of shape {list(block_of(first)[1])}, and wanted as {item.dtype} of"
            f" shape {list(item.global_shape)}"
        )
    # Of replicas that a set of ranks holds, one of each block.
    blocks: dict[Block, HolderT] = {}
    for holder, block in fitting:
        blocks.setdefault(block, holder)
    needed = {block: holder for block, holder in blocks.items() if item.block.overlap(block) is not None}
    if not covers(item.block, list(needed)):
        return f"the stored blocks of {item.name!r} do not make up what is wanted of it, or overlap"
    return [(holder, False) for holder in needed.values()]


def _check_target(item: Wanted, *, dry: bool) -> None:
    if item.dtype not in ITEM_BYTES:
        raise FormatError(f"{item.name!r}: unknown dtype {item.dtype!r}")
    size = item.block.elements * ITEM_BYTES[item.dtype]
    if not dry and (item.target.nbytes != size or item.target.readonly):
        raise FormatError(f"{item.name!r}: the buffer has {item.target.nbytes} bytes, not {size}, or is read-only")
    if item.start is not None and (
        len(item.start) != len(item.shape)
        or len(item.global_shape) != len(item.shape)
        or any(
            begin < 0 or begin + extent > end
            for begin, extent, end in zip(item.start, item.shape, item.global_shape, strict=True)
        )
    ):
        raise FormatError(f"{item.name!r}: the block at {item.start} of {item.shape} is outside of {item.global_shape}")
