"""What must be decoded, in which order, to get one tensor: its companion, its bases, and theirs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sternpost_checkpoint.errors import FormatError
from sternpost_checkpoint.format.documents import MAX_CHAIN, StoredTensor
from sternpost_checkpoint.format.table import TensorSpec
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.restore.archive import Archive, RankPart, StoredHolder

MAX_EXPANSION = 2**20
"""What stands alone may grow by at most so much when it is decoded: each 4 MiB piece of zeros takes more than 4 bytes in any
codec here. A delta may grow beyond, its base vouches for its size."""
MAX_STEPS = 4 * (MAX_CHAIN + 1)

_Key = tuple[Generation, int, int]


@dataclass(frozen=True)
class Step:
    """One tensor to decode, after those it needs."""

    holder: StoredHolder
    base: int | None
    """The step whose result is the base."""
    companion: int | None

    @property
    def spec(self) -> TensorSpec:
        """Its table entry."""
        return self.holder.spec

    @property
    def stored(self) -> StoredTensor:
        """Where its bytes are."""
        return self.holder.stored

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.holder.part.shard}: tensor {self.spec.name!r}"

    def shifted(self, by: int) -> Step:
        """The same in a list that has `by` other steps before."""
        return replace(
            self,
            base=None if self.base is None else self.base + by,
            companion=None if self.companion is None else self.companion + by,
        )


def steps_for(archive: Archive, holders: list[StoredHolder]) -> list[Step]:
    """Every step that `holders` (of one rank) need, those first that others need. Raises FormatError, NotFoundError.

    Iterative: how deep a chain goes is for the files to say, and they are not trusted.
    """
    steps: list[Step] = []
    numbers: dict[_Key, int] = {}
    open_keys: set[_Key] = set()
    stack: list[StoredHolder] = list(reversed(holders))
    limit = MAX_STEPS * len(holders)
    while stack:
        holder = stack[-1]
        key = _key(holder)
        if key in numbers:
            stack.pop()
            continue
        base, companion = _base(archive, holder), _companion(holder)
        missing = [need for need in (base, companion) if need is not None and _key(need) not in numbers]
        if missing:
            if key in open_keys or len(numbers) + len(open_keys) > limit:
                raise FormatError(f"{holder.part.shard}: tensor {holder.spec.name!r} needs itself, or too much else")
            open_keys.add(key)
            stack.extend(missing)
            continue
        if base is None and holder.spec.bytes > MAX_EXPANSION * max(holder.stored.stored_bytes, 1):
            raise FormatError(f"{holder.part.shard}: {holder.spec.name!r} grows beyond all reason")
        stack.pop()
        open_keys.discard(key)
        numbers[key] = len(steps)
        steps.append(
            Step(
                holder,
                numbers[_key(base)] if base is not None else None,
                numbers[_key(companion)] if companion is not None else None,
            )
        )
    return steps


def related(holders: Iterable[StoredHolder]) -> list[list[StoredHolder]]:
    """Put together what shares a companion, so that it is decoded once; the order stays. Raises FormatError."""
    groups: dict[_Key, list[StoredHolder]] = {}
    for holder in holders:
        companion = _companion(holder)
        groups.setdefault(_key(companion if companion is not None else holder), []).append(holder)
    return list(groups.values())


def _key(holder: StoredHolder) -> _Key:
    return (holder.part.index.generation, holder.rank, holder.stored.tensor)


def _base(archive: Archive, holder: StoredHolder) -> StoredHolder | None:
    if not holder.stored.delta:
        return None
    parent = archive.parent(holder.part)
    stored = parent.by_name.get(holder.spec.name)
    if stored is None:
        raise FormatError(f"{parent.shard} has no tensor {holder.spec.name!r}, which {holder.part.shard} builds on")
    spec = parent.specs[stored.tensor]
    if (spec.dtype, spec.shape) != (holder.spec.dtype, holder.spec.shape):
        raise FormatError(f"{parent.shard} has {holder.spec.name!r} of another type or shape than its delta")
    return StoredHolder(parent, stored)


def _companion(holder: StoredHolder) -> StoredHolder | None:
    number, part = holder.stored.companion, holder.part
    if number is None:
        return None
    companion = part.by_tensor.get(number)
    if companion is None:
        raise FormatError(f"{part.shard}: the companion of {holder.spec.name!r} is not in the shard")
    if companion.companion is not None:
        raise FormatError(f"{part.shard}: the companion of {holder.spec.name!r} has one itself")
    return StoredHolder(part, companion)


def part_chain(archive: Archive, part: RankPart) -> list[RankPart]:
    """The parts behind one, nearest first. Raises FormatError, NotFoundError."""
    found: list[RankPart] = []
    while part.index.base is not None:
        part = archive.parent(part)
        found.append(part)
    return found
