"""Encoding a planned tensor: the pieces, then what the index says of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import xxhash

from sternpost_checkpoint.adaptive.choice import RAW, Choice, choose
from sternpost_checkpoint.adaptive.policy import CodecPolicy, Exactness
from sternpost_checkpoint.adaptive.pressure import Pressure
from sternpost_checkpoint.codec.base import PIECE_BYTES, NotEncodable, by_name
from sternpost_checkpoint.codec.moments import Moments, encode_moments
from sternpost_checkpoint.format.documents import MAX_REASON
from sternpost_checkpoint.sidecar.bases import KeptState
from sternpost_checkpoint.sidecar.plan import Planned
from sternpost_checkpoint.sidecar.trials import Inputs, TrialBook

Piece = bytes | memoryview

MOMENT_CODECS: dict[Exactness, tuple[str, ...]] = {
    Exactness.LOSSLESS: (),
    Exactness.ADAPTIVE: ("clusters-8",),
    Exactness.COMPACT: ("clusters-4", "clusters-8"),
}
"""The smallest first."""


@dataclass(frozen=True)
class Part:
    """Stands behind the pieces of a tensor: what became of it."""

    number: int
    """Index into the table."""
    name: str
    codec: str
    delta: bool
    companion: int | None
    raw_hash: str
    raw_bytes: int
    reason: str
    update_error: float | None = None


Item = Piece | Part


Batch = list[Item]
"""Handed over together: passing on each tensor of a few kilobytes by itself would cost more than encoding it."""
BATCH_BYTES = 2**20


def batch_bytes(batch: Batch) -> int:
    """What a batch takes while it waits."""
    return sum(memoryview(item).nbytes for item in batch if not isinstance(item, Part))


@dataclass(frozen=True)
class Encoder:
    """What encoding needs to know besides the tensor. Used by several threads."""

    policy: CodecPolicy
    pressure: Pressure
    book: TrialBook
    kept: KeptState | None
    """Where the decoded bytes go, for the next save."""

    def batches(self, units: Sequence[Sequence[Planned]]) -> Iterator[Batch]:
        """Yield what `encode` makes of all units, in batches."""
        batch: Batch = []
        size = 0
        for unit in units:
            for item in self.encode(unit):
                batch.append(item)
                size += 0 if isinstance(item, Part) else memoryview(item).nbytes
                if size >= BATCH_BYTES:
                    yield batch
                    batch, size = [], 0
        if batch:
            yield batch

    def encode(self, planned: Sequence[Planned]) -> Iterator[Item]:
        """Yield the stored bytes of one tensor, and its Part last; of two moments, one after the other."""
        refused = ""
        if len(planned) == 2:
            first, second = planned
            for codec in MOMENT_CODECS[self.policy.exactness]:
                try:
                    found = encode_moments(
                        first.inputs.raw, second.inputs.raw, codec=codec, bound=self.policy.max_update_error
                    )
                except NotEncodable as error:
                    refused += f"; {error}"
                    continue
                reason = f"update error {found.update_error:.2g} of at most {self.policy.max_update_error:g}{refused}"
                yield from _parts(codec, reason, found, first, second)
                return
        for item in planned:
            reason = f"{item.choice.reason}{refused}"[:MAX_REASON]
            yield from self._encode(replace(item, choice=replace(item.choice, reason=reason)))

    def _encode(self, planned: Planned) -> Iterator[Item]:
        inputs = self._keep(planned.inputs)
        size, started = 0, time.perf_counter()
        choice, pieces = self._begin(planned, inputs)
        seconds = time.perf_counter() - started
        while True:
            started = time.perf_counter()
            piece = next(pieces, None)
            seconds += time.perf_counter() - started  # not what passes while the piece waits
            if piece is None:
                break
            size += memoryview(piece).nbytes
            yield piece
        spec = inputs.spec
        if not planned.rivals:
            self.book.speeds.observe(choice.codec, spec.dtype, planned.evidence.changed, spec.bytes, seconds)
        if spec.bytes:
            self.book.learn(spec.name, choice.codec, size / spec.bytes)
        yield Part(
            number=planned.number,
            name=spec.name,
            codec=choice.codec,
            delta=choice.delta,
            companion=inputs.role.companion if choice.companion else None,
            raw_hash=xxhash.xxh3_128_hexdigest(inputs.raw),
            raw_bytes=spec.bytes,
            reason=choice.reason,
        )

    def _keep(self, inputs: Inputs) -> Inputs:
        kept = self.kept.tensors.get(inputs.spec.name) if self.kept is not None else None
        if kept is None:
            return inputs
        # What is encoded and what is kept are one copy: whatever the slot's writer does meanwhile, they agree.
        kept.raw[:] = inputs.raw
        kept.filled = True
        return replace(inputs, raw=kept.raw)

    def _begin(self, planned: Planned, inputs: Inputs) -> tuple[Choice, Iterator[Piece]]:
        if planned.rivals:
            return self._smallest(planned, inputs)
        choice, evidence = planned.choice, planned.evidence
        while True:
            try:
                pieces = pieces_of(choice.codec, inputs)
                first = next(pieces, None)
            except NotEncodable as error:
                others = tuple(trial for trial in evidence.trials if trial.codec != choice.codec)
                evidence = replace(evidence, trials=others)
                refused = choice.codec
                choice = choose(evidence, self.policy, self.pressure, delta=planned.delta)
                choice = replace(choice, reason=f"{choice.reason}; not {refused}: {error}"[:MAX_REASON])
                continue
            return self._unless_larger(choice, inputs, first, pieces)

    @staticmethod
    def _unless_larger(
        choice: Choice, inputs: Inputs, first: Piece | None, rest: Iterator[Piece]
    ) -> tuple[Choice, Iterator[Piece]]:
        """A tensor of one piece has been encoded whole by now: then it is known whether it was worth it."""
        if choice.codec != RAW and first is not None and len(inputs.raw) <= PIECE_BYTES:
            pieces = [first, *rest]
            if sum(memoryview(piece).nbytes for piece in pieces) >= len(inputs.raw):
                return raw_choice(choice, "grew"), pieces_of(RAW, inputs)
            return choice, iter(pieces)
        return choice, _chained(first, rest)

    def _smallest(self, planned: Planned, inputs: Inputs) -> tuple[Choice, Iterator[Piece]]:
        """Encode by every codec that comes close, and take what is smallest."""
        best: tuple[int, Choice, Sequence[Piece]] | None = None
        for name in (planned.choice.codec, *planned.rivals):
            codec = by_name(name)
            try:
                pieces = list(pieces_of(name, inputs))
            except NotEncodable:
                continue
            size = sum(memoryview(piece).nbytes for piece in pieces)
            if best is None or size < best[0]:
                choice = replace(planned.choice, codec=name, delta=codec.needs_base, companion=codec.needs_companion)
                best = size, choice, pieces
        if best is None or best[0] >= len(inputs.raw):
            return raw_choice(planned.choice, "nothing gains"), pieces_of(RAW, inputs)
        return best[1], iter(best[2])


def _parts(codec: str, reason: str, found: Moments, first: Planned, second: Planned) -> Iterator[Item]:
    for planned, pieces, raw_hash in (
        (first, found.first, found.first_raw_hash),
        (second, found.second, found.second_raw_hash),
    ):
        yield from pieces
        spec = planned.inputs.spec
        yield Part(
            number=planned.number,
            name=spec.name,
            codec=codec,
            delta=False,
            companion=None,
            raw_hash=raw_hash,
            raw_bytes=spec.bytes,
            reason=f"{planned.inputs.role.kind}: {reason}"[:MAX_REASON],
            update_error=found.update_error,
        )


def raw_choice(choice: Choice, why: str) -> Choice:
    """Raw, in place of `choice`."""
    return Choice(RAW, delta=False, companion=False, share=1.0, reason=f"{choice.reason}; {why}"[:MAX_REASON])


def pieces_of(name: str, inputs: Inputs) -> Iterator[Piece]:
    """Encode by the codec `name`. Raises NotEncodable at the latest with the first piece."""
    codec = by_name(name)
    return codec.encode(inputs.raw, inputs.spec.dtype, inputs.beside.for_codec(codec))


def _chained(first: Piece | None, rest: Iterator[Piece]) -> Iterator[Piece]:
    if first is not None:
        yield first
    yield from rest
