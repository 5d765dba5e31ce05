"""Reading a committed generation.

```
read_generation(catalog, generation, [Wanted("model/w", "float32", (4, 8), memoryview(buffer))])
```

fills each buffer or raises; every stored and every decoded tensor on the way is verified by its hash, delta chains and
companions included. A `Wanted` with `start` and `whole` is a block of a larger tensor, made up of whatever blocks the ranks
have stored (another world size is nothing special). `rank` says whose, for a tensor that each rank has for itself.

`GenerationReader` is the same in parts: `part(rank).specs` and `.index.trees` say what there is, `read` fills, `tensors`
goes through everything that is stored, decoded, within bounded memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.errors import CheckpointError, FormatError
from sternpost_checkpoint.format.documents import Manifest
from sternpost_checkpoint.format.dtypes import ITEM_BYTES
from sternpost_checkpoint.format.names import generation_folder
from sternpost_checkpoint.format.table import Meta, TensorSpec
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.restore.archive import Archive, RankPart, StoredHolder
from sternpost_checkpoint.restore.blocks import copy_overlap
from sternpost_checkpoint.restore.chain import Step, related, steps_for
from sternpost_checkpoint.restore.decode import cost_of, run_steps
from sternpost_checkpoint.restore.pool import Limits, run_all
from sternpost_checkpoint.restore.wanted import Piece, Plan, Wanted, block_of, plan
from sternpost_checkpoint.shm.layout import align

SPAN_BYTES = 8 * 2**20
"""Small tensors that lie beside each other are read at once, so much at most."""


def read_generation(
    catalog: Catalog, generation: Generation, wanted: Iterable[Wanted], limits: Limits | None = None
) -> None:
    """Fill the buffers of `wanted`, all or none that can be relied on.

    Raises NotFoundError or FormatError, naming the file and the tensor, when the generation is damaged or does not have
    what is wanted; StoreError when the storage does not answer.
    """
    GenerationReader(catalog, generation).read(wanted, limits)


@dataclass
class _Work:
    """Tensors that are read and decoded together."""

    steps: list[Step]
    targets: dict[int, memoryview]
    """By step."""
    scratch: dict[int, Piece[StoredHolder]] = field(default_factory=dict)
    """By step: pieces of which buffers get only parts."""

    @property
    def cost(self) -> int:
        """Bytes beside the targets."""
        extra = sum(self.steps[number].spec.bytes for number in self.scratch)
        return extra + cost_of(self.steps, self.targets | dict.fromkeys(self.scratch, memoryview(b"")))


class GenerationReader:
    """One generation; remembers the documents it has read. One thread uses it, and it uses several."""

    def __init__(self, catalog: Catalog, generation: Generation) -> None:
        self.generation = generation
        self._archive = Archive(catalog)
        self._store = catalog.store

    @property
    def manifest(self) -> Manifest:
        """Raises NotFoundError, FormatError."""
        return self._archive.manifest(self.generation)

    def part(self, rank: int) -> RankPart:
        """What a rank has saved: its index and table. Raises NotFoundError, FormatError."""
        return self._archive.part(self.generation, rank)

    def parts(self) -> Iterator[RankPart]:
        """Every rank's part, by rank."""
        return self._archive.parts(self.generation)

    def meta(self, rank: int) -> Meta:
        """Trees and table of a rank; one that did not exist gets rank 0's without its random states.

        Raises FormatError, NotFoundError.
        """
        exists = rank < self.manifest.world_size
        part = self.part(rank if exists else 0)
        meta = Meta(part.index.replicated, part.index.trees, part.specs)
        return meta if exists else without_random(meta)

    def read(self, wanted: Iterable[Wanted], limits: Limits | None = None) -> None:
        """As `read_generation`."""
        self._run(self._chosen(list(wanted)), limits or Limits())

    def check(self, wanted: Iterable[Wanted]) -> None:
        """Raise what `read` would, as far as the documents tell it; their targets need not be there yet."""
        for group in related(piece.holder for piece in self._chosen(list(wanted), dry=True)):
            steps_for(self._archive, group)

    def tensors(
        self, do: Callable[[RankPart, TensorSpec, memoryview], None], limits: Limits | None = None
    ) -> list[Exception]:
        """Decode every stored tensor of every rank and hand it to `do`, in several threads; returns what is damaged.

        The memory is `do`'s only for the call.
        """
        problems: list[Exception] = []
        for rank in range(self.manifest.world_size):
            work: list[_Work] = []
            try:
                part = self.part(rank)
                for group in related(part.holders()):
                    work.append(self._whole([Piece(holder) for holder in group]))  # noqa: PERF401 # may raise in between
            except CheckpointError as error:
                problems.append(error)
                continue

            def hand_over(work: _Work, part: RankPart = part) -> None:
                for number, raw in self._decode(work).items():
                    do(part, work.steps[number].spec, raw)

            failed = run_all(_merged(work), lambda item: item.cost, hand_over, limits or Limits())
            problems += [error for _, error in failed]
        return problems

    def _chosen(self, wanted: Sequence[Wanted], *, dry: bool = False) -> list[Piece[StoredHolder]]:
        chosen = self._plan(wanted, dry=dry)
        if chosen.missing:
            item, reason = chosen.missing[0]
            raise FormatError(f"{generation_folder(self.generation)}: {reason} (for rank {item.rank})")
        return chosen.pieces

    def _plan(self, wanted: Sequence[Wanted], *, dry: bool) -> Plan[StoredHolder]:
        """From as few ranks' indexes as there must be: the own ones first, then all."""
        world = self.manifest.world_size
        own = sorted({item.rank for item in wanted if 0 <= item.rank < world}) or [0]
        parts = [self.part(rank) for rank in own]
        chosen = plan(wanted, (holder for part in parts for holder in part.holders()), dry=dry)
        if chosen.missing and len(own) < world:
            parts += [part for part in self.parts() if part.index.rank not in own]
            chosen = plan(wanted, (holder for part in parts for holder in part.holders()), dry=dry)
        return chosen

    def _whole(self, group: Sequence[Piece[StoredHolder]]) -> _Work:
        steps = steps_for(self._archive, [piece.holder for piece in group])
        numbers = {(step.holder.part.index.generation, step.stored.tensor): number for number, step in enumerate(steps)}
        own = group[0].holder.part.index.generation
        return _Work(steps, {}, {numbers[own, piece.holder.stored.tensor]: piece for piece in group})

    def _run(self, pieces: Sequence[Piece[StoredHolder]], limits: Limits) -> None:
        ordered = sorted(pieces, key=lambda piece: (piece.holder.part.shard, piece.holder.stored.offset))
        by_holder = {id(piece.holder): piece for piece in ordered}
        work = []
        for group in related(piece.holder for piece in ordered):
            item = self._whole([by_holder[id(holder)] for holder in group])
            for number, piece in list(item.scratch.items()):
                direct = [use for use in piece.uses if use.direct]
                if direct:
                    item.targets[number] = _bytes(direct[0].wanted.target)
                    piece.uses.remove(direct[0])
                    if not piece.uses:
                        del item.scratch[number]
            work.append(item)
        failed = run_all(_merged(work), lambda item: item.cost, self._fill, limits)
        if failed:
            raise failed[0][1]

    def _fill(self, work: _Work) -> None:
        results = self._decode(work)
        for number, piece in work.scratch.items():
            spec = work.steps[number].spec
            block, _ = block_of(spec)
            raw = work.targets.get(number) or results[number]
            for use in piece.uses:
                item = use.wanted
                copy_overlap(_bytes(item.target), item.block, raw, block, ITEM_BYTES[spec.dtype])

    def _decode(self, work: _Work) -> dict[int, memoryview]:
        """Read and decode; returns the results that have no target."""
        scratch = {
            number: np.empty(work.steps[number].spec.bytes, dtype=np.uint8).data
            for number in work.scratch
            if number not in work.targets
        }
        run_steps(self._store, work.steps, {**work.targets, **scratch}, self._span(work))
        return scratch

    def _span(self, work: _Work) -> dict[int, memoryview]:
        """Read in one go what lies beside each other."""
        extent = _Extent.of(work) if len(work.steps) > 1 else None
        if extent is None or not extent.worth_one_read:
            return {}
        start = extent.start
        data = np.empty(extent.end - start, dtype=np.uint8).data
        self._store.read_into(extent.shard, start, data)
        return {
            number: data[step.stored.offset - start : step.stored.offset - start + step.stored.stored_bytes]
            for number, step in enumerate(work.steps)
        }


def without_random(meta: Meta) -> Meta:
    """For a rank that did not exist: the random states of another are not its own. Raises FormatError."""
    trees = {role: tree for role, tree in meta.trees.items() if role != "random"}
    kept: list[TensorSpec] = []
    offset = 0
    # The tensors of the random states stand last in the table, so that the others keep their indexes.
    for spec in meta.tensors:
        if spec.role != "random":
            kept.append(replace(spec, offset=offset))
            offset = align(offset + spec.bytes)
    if [spec.name for spec in kept] != [spec.name for spec in meta.tensors[: len(kept)]]:
        raise FormatError("the random states do not stand last in the table")
    return Meta(replicated=meta.replicated, trees=trees, tensors=tuple(kept))


def _merged(work: Sequence[_Work]) -> list[_Work]:
    """Put small neighbours together, for each read of an object store costs a round trip."""
    merged: list[_Work] = []
    around: _Extent | None = None
    for item in work:
        own = _Extent.of(item)
        both = around.with_(own) if around is not None and own is not None else None
        if both is None or not both.worth_one_read:
            merged.append(item)
            around = own
            continue
        last, around = merged[-1], both
        shift = len(last.steps)
        last.steps += [step.shifted(shift) for step in item.steps]
        last.targets |= {number + shift: target for number, target in item.targets.items()}
        last.scratch |= {number + shift: piece for number, piece in item.scratch.items()}
    return merged


@dataclass(frozen=True)
class _Extent:
    """Where the stored bytes of some work lie, all in one shard."""

    shard: str
    start: int
    end: int
    stored: int
    raw: int

    @classmethod
    def of(cls, work: _Work) -> _Extent | None:
        shard = work.steps[0].holder.part.shard
        if any(step.holder.part.shard != shard for step in work.steps):
            return None
        return cls(
            shard,
            min(step.stored.offset for step in work.steps),
            max(step.stored.offset + step.stored.stored_bytes for step in work.steps),
            sum(step.stored.stored_bytes for step in work.steps),
            sum(step.spec.bytes for step in work.steps),
        )

    def with_(self, other: _Extent) -> _Extent | None:
        if self.shard != other.shard:
            return None
        return _Extent(
            self.shard,
            min(self.start, other.start),
            max(self.end, other.end),
            self.stored + other.stored,
            self.raw + other.raw,
        )

    @property
    def worth_one_read(self) -> bool:
        length = self.end - self.start
        return length <= min(SPAN_BYTES, 2 * self.stored + 4096) and self.raw <= 4 * SPAN_BYTES


def _bytes(target: memoryview) -> memoryview:
    return target if target.format == "B" and target.ndim == 1 else target.cast("B")
