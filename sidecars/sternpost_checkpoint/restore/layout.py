"""The table of a restored state: what the trainer wants of it, or whole tensors. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from sternpost_checkpoint.errors import FormatError
from sternpost_checkpoint.format.table import Meta, Shard, TensorSpec, tensor_bytes
from sternpost_checkpoint.restore.wanted import Wanted, block_of
from sternpost_checkpoint.shm.layout import align


@dataclass(frozen=True)
class WantedEntry:
    """A tensor as the trainer needs it now."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    shard: Shard | None = None


def lay_out(meta: Meta, wanted: Iterable[WantedEntry]) -> Meta:
    """The table of `meta` with each tensor as it is wanted; the trees stay, for they name tensors by their place.

    A block that nobody asks for becomes the whole tensor. Raises FormatError for one that cannot be what is wanted.
    """
    by_name = {entry.name: entry for entry in wanted}
    specs, offset = [], 0
    for spec in meta.tensors:
        new = _as_wanted(spec, by_name)
        specs.append(replace(new, offset=offset))
        offset = align(offset + new.bytes)
    return Meta(replicated=meta.replicated, trees=meta.trees, tensors=tuple(specs))


def _as_wanted(spec: TensorSpec, by_name: Mapping[str, WantedEntry]) -> TensorSpec:
    _, whole = block_of(spec)
    entry = by_name.get(spec.name, WantedEntry(spec.name, spec.dtype, whole))
    if entry.dtype != spec.dtype or (entry.shard.shape if entry.shard else entry.shape) != whole:
        raise FormatError(
            f"{spec.name!r} was saved as {spec.dtype} of shape {list(whole)}, and is wanted as {entry.dtype} of shape"
            f" {list(entry.shard.shape if entry.shard else entry.shape)}"
        )
    if (entry.shape, entry.shard) == (spec.shape, spec.shard):
        return spec
    size = tensor_bytes(entry.dtype, entry.shape)
    return replace(spec, shape=entry.shape, bytes=size, shard=entry.shard, replicated=False, stored=False)


def buffers(meta: Meta, rank: int, memory: memoryview) -> list[Wanted]:
    """The pieces of a payload as what is to be filled, `rank` being whose tensors they are."""
    return [
        Wanted(
            name=spec.name,
            dtype=spec.dtype,
            shape=spec.shape,
            target=memory[spec.offset : spec.offset + spec.bytes],
            rank=rank,
            start=spec.shard.start if spec.shard else None,
            whole=spec.shard.shape if spec.shard else None,
        )
        for spec in meta.tensors
    ]
