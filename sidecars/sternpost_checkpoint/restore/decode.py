"""Decoding the steps of a chain, each verified before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xxhash

from sternpost_checkpoint.codec.base import Beside, Codec, by_name
from sternpost_checkpoint.codec.raw import RawCodec
from sternpost_checkpoint.errors import FormatError
from sternpost_checkpoint.format.documents import StoredTensor
from sternpost_checkpoint.restore.chain import Step
from sternpost_checkpoint.store.base import Store


def cost_of(steps: Sequence[Step], targets: Mapping[int, memoryview]) -> int:
    """Bytes that `run_steps` needs at most at a time, beside the targets."""
    last = _last_uses(steps)
    live = peak = 0
    for number, step in enumerate(steps):
        live += 0 if number in targets else step.spec.bytes
        peak = max(peak, live + step.stored.stored_bytes)
        live -= sum(steps[other].spec.bytes for other in last[number] if other not in targets)
    return peak


def run_steps(
    store: Store, steps: Sequence[Step], targets: Mapping[int, memoryview], read: Mapping[int, memoryview] | None = None
) -> None:
    """Decode all `steps` in their order; the results of those in `targets` go there, the others' are dropped after use.

    `read`: stored bytes that are here already, by step. Raises FormatError naming the file and the tensor, StoreError.
    """
    last = _last_uses(steps)
    results: dict[int, memoryview] = {}
    for number, step in enumerate(steps):
        raw = targets[number] if number in targets else np.empty(step.spec.bytes, dtype=np.uint8).data
        stored = read[number] if read and number in read else _read(store, step, raw)
        beside = Beside(
            base=results[step.base] if step.base is not None else None,
            companion=results[step.companion] if step.companion is not None else None,
            companion_dtype=steps[step.companion].spec.dtype if step.companion is not None else None,
        )
        decode_step(step, stored, raw, beside)
        results[number] = raw
        for other in last[number]:
            del results[other]


def decode_step(step: Step, stored: memoryview, raw: memoryview, beside: Beside) -> None:
    """Decode one tensor into `raw`, which has its size; stored and decoded bytes are verified. Raises FormatError."""
    entry = step.stored
    if xxhash.xxh3_128_hexdigest(stored) != entry.stored_hash:
        raise FormatError(f"{step.where}: the stored bytes do not match their hash, the file is damaged")
    try:
        codec = _codec(entry)
        if stored is not raw:
            codec.decode(stored, raw, step.spec.dtype, beside)
    except FormatError as error:
        raise FormatError(f"{step.where}: {error}") from error
    decoded = entry.stored_hash if stored is raw else xxhash.xxh3_128_hexdigest(raw)
    if decoded != entry.raw_hash:
        raise FormatError(f"{step.where}: the decoded bytes do not match their hash")


def _codec(entry: StoredTensor) -> Codec:
    codec = by_name(entry.codec)
    if codec.needs_base != entry.delta or codec.needs_companion != (entry.companion is not None):
        raise FormatError(f"codec {entry.codec!r} and the index differ about what it needs")
    return codec


def _read(store: Store, step: Step, raw: memoryview) -> memoryview:
    """The stored bytes; those of the codec `raw` are read to where they belong."""
    size = step.stored.stored_bytes
    target = raw if step.stored.codec == RawCodec.name and size == len(raw) else np.empty(size, dtype=np.uint8).data
    store.read_into(step.holder.part.shard, step.stored.offset, target)
    return target


def _last_uses(steps: Sequence[Step]) -> list[list[int]]:
    """For each step, the results that nobody needs after it."""
    last = list(range(len(steps)))
    for number, step in enumerate(steps):
        for need in (step.base, step.companion):
            if need is not None:
                last[need] = number
    ended: list[list[int]] = [[] for _ in steps]
    for number, by in enumerate(last):
        ended[by].append(number)
    return ended
