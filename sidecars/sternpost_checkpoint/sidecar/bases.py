"""The decoded state of the newest committed generation of a rank, in memory: what the next save is encoded against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sternpost_checkpoint.adaptive.chains import BaseView
from sternpost_checkpoint.adaptive.kinds import Kind, Role
from sternpost_checkpoint.format.table import Shard, TensorSpec
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.sidecar.budget import Budget

MAX_STORED = 1000
"""Stored generations that are remembered; more of them than any collection keeps need not be told apart."""


@dataclass
class KeptTensor:
    """One tensor of a state."""

    dtype: str
    shape: tuple[int, ...]
    shard: Shard | None
    raw: memoryview
    """Its decoded bytes, as anybody gets them who reads the generation."""
    behind: float = 0.0
    """Stored bytes that must be read to decode it."""
    filled: bool = False

    def fits(self, spec: TensorSpec) -> bool:
        """Whether `spec` can be encoded against it."""
        return self.filled and (self.dtype, self.shape, self.shard) == (spec.dtype, spec.shape, spec.shard)


@dataclass
class KeptState:
    """The tensors of a generation that are worth keeping."""

    generation: Generation
    tensors: dict[str, KeptTensor]
    memory: npt.NDArray[np.uint8]
    shard_hash: str = ""
    chain: int = 0
    """Of the generation's manifest."""
    dropped: bool = False


@dataclass
class BaseKeeper:
    """Two states at most: the base, and the newest save, which becomes the base when it is committed."""

    budget: Budget
    """Shared by the ranks of this sidecar."""
    base: KeptState | None = None
    candidate: KeptState | None = None
    stored: list[Generation] = field(default_factory=list)
    """What this rank has stored, in its order."""
    _spare: npt.NDArray[np.uint8] | None = None

    @property
    def bytes(self) -> int:
        """Memory that is taken."""
        kept = [state.memory for state in (self.base, self.candidate) if state is not None]
        return sum(len(memory) for memory in kept) + (len(self._spare) if self._spare is not None else 0)

    def view(self, *, on_line: bool) -> BaseView | None:
        """The base, for the decision whether it may be one."""
        if self.base is None:
            return None
        later = sum(1 for generation in self.stored if generation > self.base.generation)
        return BaseView(self.base.generation, self.base.chain, later, on_line)

    def begin(self, generation: Generation, specs: Sequence[TensorSpec]) -> KeptState | None:
        """Memory for those tensors of a new save; None when the budget does not have it. The candidate before is forgotten."""
        if self.candidate is not None:
            self._put_aside(self.candidate.memory)
            self.candidate = None
        total = sum(spec.bytes for spec in specs)
        memory = self._allocate(total) if total else None
        if memory is None:
            return None
        tensors, offset = {}, 0
        for spec in specs:
            raw = memory.data[offset : offset + spec.bytes]
            tensors[spec.name] = KeptTensor(spec.dtype, spec.shape, spec.shard, raw)
            offset += spec.bytes
        return KeptState(generation, tensors, memory)

    def finish(self, generation: Generation, state: KeptState | None, shard_hash: str) -> None:
        """This rank's part is stored; the state becomes the base once the generation is committed."""
        self.stored = [*self.stored, generation][-MAX_STORED:]
        if state is not None:
            state.shard_hash = shard_hash
            self.candidate = state

    def drop(self, state: KeptState | None) -> None:
        """The save came to nothing. Its memory is not used again: an encoding thread may still be writing there."""
        if state is not None and not state.dropped:
            state.dropped = True
            self.budget.release(len(state.memory))

    def promote(self, chain: int) -> None:
        """The candidate is committed, with so long a chain: it is the base now."""
        if self.candidate is None:
            return
        if self.base is not None:
            self._put_aside(self.base.memory)
        self.base, self.candidate = self.candidate, None
        self.base.chain = chain
        self.stored = [generation for generation in self.stored if generation > self.base.generation]

    def forget(self) -> None:
        """Give everything back: the base is not in the storage any more, or its rank is gone."""
        for state in (self.base, self.candidate):
            if state is not None:
                self._put_aside(state.memory)
        self.base = self.candidate = None
        if self._spare is not None:
            self.budget.release(len(self._spare))
            self._spare = None

    def _allocate(self, total: int) -> npt.NDArray[np.uint8] | None:
        if self._spare is not None and len(self._spare) == total:
            memory, self._spare = self._spare, None
            return memory
        if self._spare is not None:
            self.budget.release(len(self._spare))
            self._spare = None
        return np.empty(total, dtype=np.uint8) if self.budget.try_acquire(total) else None

    def _put_aside(self, memory: npt.NDArray[np.uint8]) -> None:
        # One is enough: there are never more than a base, a save in the making and a spare between them.
        if self._spare is None:
            self._spare = memory
        else:
            self.budget.release(len(memory))


def worth_keeping(
    specs: Sequence[TensorSpec], roles: dict[int, Role], limit: int, *, moments: bool
) -> list[TensorSpec]:
    """The tensors that a later save may be encoded against, as many as `limit` bytes hold, those that gain most first.

    `moments`: whether they are stored bit for bit; what decoding gives of others is not what is in the slot.
    """

    def rank(number: int) -> int | None:
        kind = roles[number].kind
        if kind is Kind.WEIGHT:
            return 0 if specs[number].dtype in ("bfloat16", "float16") else 1
        if kind is Kind.MASTER:
            return 3
        if kind is Kind.SECOND_MOMENT and moments:
            return 2
        return 4 if kind is Kind.FIRST_MOMENT and moments else None

    chosen, used = [], 0
    ranked = [(order, number) for number in roles if specs[number].bytes and (order := rank(number)) is not None]
    for _, number in sorted(ranked):
        if used + specs[number].bytes <= limit:
            chosen.append(specs[number])
            used += specs[number].bytes
    return chosen
