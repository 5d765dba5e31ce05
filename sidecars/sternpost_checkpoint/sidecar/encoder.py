"""The encoder of one rank: plans a save, streams its shard, and keeps what the next one is encoded against."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog
import xxhash

from sternpost_checkpoint.adaptive.chains import Decision, may_build
from sternpost_checkpoint.adaptive.policy import CodecPolicy, Preference
from sternpost_checkpoint.adaptive.pressure import Pressure, StageTimes
from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.errors import FormatError, NotFoundError
from sternpost_checkpoint.format.documents import Base, StoredTensor
from sternpost_checkpoint.format.shard import SHARD_HEADER
from sternpost_checkpoint.format.table import TensorSpec
from sternpost_checkpoint.lineage import Generation, eligible
from sternpost_checkpoint.sidecar.bases import BaseKeeper, KeptState
from sternpost_checkpoint.sidecar.budget import Budget
from sternpost_checkpoint.sidecar.encode import BATCH_BYTES, Batch, Encoder, Part, Piece, batch_bytes
from sternpost_checkpoint.sidecar.pipeline import Request, Stream, Waits
from sternpost_checkpoint.sidecar.plan import Plan, cost_of, grouped, make_plan
from sternpost_checkpoint.sidecar.trials import Speeds, TrialBook
from sternpost_checkpoint.sidecar.workers import touch

_log = structlog.get_logger()


@dataclass
class Resources:
    """What the ranks of a sidecar share."""

    memory: Budget
    """Bytes of encoded pieces that wait for the storage."""
    processors: Budget
    bases: Budget
    """Bytes of states that are kept to encode later ones against."""
    speeds: Speeds = field(default_factory=Speeds)


@dataclass
class CodecTotals:
    """What one codec did in a save."""

    tensors: int = 0
    raw_bytes: int = 0
    stored_bytes: int = 0


class Encoding:
    """One save on its way into a shard: the pieces first, and then what the index says of them."""

    def __init__(self, plan: Plan, base: KeptState | None, encoder: Encoder, resources: Resources) -> None:
        self.plan = plan
        self.kept = encoder.kept
        self.stored: list[StoredTensor] = []
        self.bytes = 0
        self.raw_bytes = 0
        self.raw_bytes_total = sum(item.inputs.spec.bytes for unit in plan.units for item in unit)
        self.totals: dict[str, CodecTotals] = {}
        self.plan_seconds = 0.0
        self._first_at = self._last_at = 0.0
        self._done_at = 0.0
        self._base = base
        self._stream = Stream(
            [
                Request[Batch](cost_of(units), partial(encoder.batches, units))
                for units in grouped(plan.units, BATCH_BYTES)
            ],
            memory=resources.memory,
            processors=resources.processors,
            size=batch_bytes,
        )
        self._hash = xxhash.xxh3_128()

    @property
    def waits(self) -> Waits:
        """What has been waited for so far."""
        return self._stream.waits

    @property
    def hash(self) -> str:
        """Of everything yielded."""
        return self._hash.hexdigest()

    @property
    def base(self) -> Base | None:
        """The parent, if a tensor needs it."""
        if self._base is None or not any(entry.delta for entry in self.stored):
            return None
        generation = self._base.generation
        return Base(step=generation.step, run=generation.run, shard_hash=self._base.shard_hash)

    @property
    def chain(self) -> int:
        """For the index."""
        return self._base.chain + 1 if self._base is not None and self.base is not None else 0

    def pieces(self) -> Iterator[Piece]:
        """Yield the whole shard. Raises what reading the slot or encoding raises."""
        self._first_at = time.perf_counter()
        yield self._count(SHARD_HEADER)
        offset, stored_hash = self.bytes, xxhash.xxh3_128()
        for item in (item for batch in self._stream.items() for item in batch):
            if not isinstance(item, Part):
                stored_hash.update(item)
                yield self._count(item)
                continue
            self._finish(item, offset, stored_hash.hexdigest())
            offset, stored_hash = self.bytes, xxhash.xxh3_128()
        self._last_at = time.perf_counter()

    def durable(self) -> None:
        """The storage has it all."""
        self._done_at = time.perf_counter()

    def stages(self) -> dict[str, float]:
        """Seconds by stage. Encoding and upload overlap, and several threads encode: they are no sum."""
        sending = self._last_at - self._first_at
        return {
            "plan": self.plan_seconds,
            "encode": self.waits.encoding,
            "wait-encoder": self.waits.encoder,
            "wait-store": self.waits.store,
            "upload": max(sending - self.waits.encoder, 0.0),
            "finish": max(self._done_at - self._last_at, 0.0),
        }

    def cancel(self) -> None:
        """Give it up: what encodes ends, and the memory of the pipeline is free. From any thread."""
        self._stream.cancel()

    def _finish(self, part: Part, offset: int, stored_hash: str) -> None:
        size = self.bytes - offset
        self.stored.append(
            StoredTensor(
                tensor=part.number,
                codec=part.codec,
                offset=offset,
                stored_bytes=size,
                raw_hash=part.raw_hash,
                stored_hash=stored_hash,
                delta=part.delta,
                companion=part.companion,
                reason=part.reason,
                update_error=part.update_error,
            )
        )
        self.raw_bytes += part.raw_bytes
        totals = self.totals.setdefault(part.codec, CodecTotals())
        totals.tensors += 1
        totals.raw_bytes += part.raw_bytes
        totals.stored_bytes += size
        if self.kept is not None and part.name in self.kept.tensors:
            behind = self._base.tensors[part.name].behind if part.delta and self._base is not None else 0.0
            self.kept.tensors[part.name].behind = size + behind

    def _count(self, piece: Piece) -> Piece:
        self._hash.update(piece)
        self.bytes += memoryview(piece).nbytes
        return piece


class RankEncoder:
    """Encodes the saves of one rank, one after the other. One thread at a time."""

    def __init__(self, policy: CodecPolicy, resources: Resources, *, keep: int) -> None:
        self.pressure = Pressure(policy.prefer, resources.processors.total)
        self._policy = policy
        self._keep = keep
        self._resources = resources
        self._keeper = BaseKeeper(resources.bases)
        self._book = TrialBook(resources.speeds, thorough=policy.prefer is Preference.SIZE)
        self._saved_at: float | None = None

    @property
    def base_bytes(self) -> int:
        """Memory that kept states take."""
        return self._keeper.bytes

    def look_at(self, catalog: Catalog, rank: int) -> bool:
        """Find out what has become of the newest save and of the base; returns whether the base is on the training's line.

        Raises StoreError.
        """
        keeper = self._keeper
        if keeper.candidate is not None:
            chain = _committed_chain(catalog, keeper.candidate, rank)
            if chain is not None:
                keeper.promote(chain)
        if keeper.base is None:
            return False
        if _committed_chain(catalog, keeper.base, rank) is None:
            _log.info("the base has been collected", rank=rank, step=keeper.base.generation.step)
            keeper.base = None
            return False
        return eligible(keeper.base.generation, catalog.runs())

    def begin(
        self, specs: Sequence[TensorSpec], payload: memoryview, generation: Generation, *, on_line: bool
    ) -> Encoding:
        """Plan a save. `payload` must stay until `pieces` has ended."""
        started, keeper = time.perf_counter(), self._keeper
        decision: Decision = may_build(
            keeper.view(on_line=on_line), generation, max_chain=self._policy.max_chain, keep=self._keep
        )
        base = keeper.base if decision.delta else None
        plan = make_plan(
            specs,
            payload,
            base=base,
            may_build=decision,
            policy=self._policy,
            pressure=self.pressure,
            book=self._book,
            keep_bytes=self._resources.bases.total // 2,
            touch=touch,
        )
        kept = keeper.begin(generation, plan.keep)
        encoder = Encoder(self._policy, self.pressure, self._book, kept)
        encoding = Encoding(plan, base, encoder, self._resources)
        encoding.plan_seconds = time.perf_counter() - started
        return encoding

    def stored(self, encoding: Encoding, generation: Generation, seconds: float, saved_at: float) -> None:
        """The save is in the storage, `seconds` after its beginning; it was made at `saved_at`, Unix seconds."""
        self._keeper.finish(generation, encoding.kept, encoding.hash)
        interval = saved_at - self._saved_at if self._saved_at is not None and saved_at > self._saved_at else None
        self._saved_at = saved_at
        stages, waits = encoding.stages(), encoding.waits
        self.pressure = self.pressure.observe(
            StageTimes(
                seconds=seconds,
                encode_seconds=waits.encoding,
                waited_for_encoder=stages["plan"] + waits.encoder,
                waited_for_store=waits.store,
                sending=stages["upload"] + stages["finish"],
                raw_bytes=encoding.raw_bytes,
                stored_bytes=encoding.bytes,
                interval=interval,
            )
        )

    def assume_committed(self, encoding: Encoding) -> None:
        """The newest save is committed, without a storage to look at: for measurements."""
        self._keeper.promote(encoding.chain)

    def failed(self, encoding: Encoding) -> None:
        """The save has come to nothing. May be called again, and from another thread."""
        encoding.cancel()
        self._keeper.drop(encoding.kept)

    def stored_before(self, generation: Generation) -> None:
        """The save was in the storage already, from an earlier life of this sidecar."""
        self._keeper.finish(generation, None, "")

    def close(self) -> None:
        """Give the memory back."""
        self._keeper.forget()


def _committed_chain(catalog: Catalog, state: KeptState, rank: int) -> int | None:
    """The chain of the generation's manifest; None when it is not there, or names another shard for this rank."""
    try:
        manifest = catalog.manifest(state.generation)
    except (NotFoundError, FormatError):
        return None
    if rank >= manifest.world_size or manifest.ranks[rank].shard.hash != state.shard_hash:
        return None
    return manifest.chain
