"""Where each tensor of a state lies in a slot's payload, and who stores it. Pure, but for looking at the tensors' shapes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from sternpost_checkpoint.client.sharded import Block, block_of, is_distributed, local_part
from sternpost_checkpoint.errors import CheckpointError
from sternpost_checkpoint.format.dtypes import ITEM_BYTES
from sternpost_checkpoint.format.table import MAX_DIMENSIONS, MAX_NAME_CHARACTERS, MAX_TENSORS, TensorSpec
from sternpost_checkpoint.shm.layout import ALIGNMENT, align

REPLICATED_ROLES = ("model", "optimizer")
SMALL_BYTES = 32 * 1024
"""Tensors below it lie together by dtype, so that one call copies many: a call costs about as much as 8 KiB of copying."""


@dataclass(frozen=True)
class Layout:
    """The table of a state. Two are the same layout only if they are the same object."""

    specs: tuple[TensorSpec, ...]

    @cached_property
    def payload_bytes(self) -> int:
        """Bytes of the payload that the tensors need."""
        return max((spec.offset + spec.bytes for spec in self.specs), default=0)

    @cached_property
    def table(self) -> bytes:
        """The JSON of the table."""
        return json.dumps([spec.to_json() for spec in self.specs], separators=(",", ":"), allow_nan=False).encode()


def dtype_name(dtype: torch.dtype) -> str:
    """The dtype's name in the format."""
    return str(dtype).removeprefix("torch.")


def assign(sizes: Sequence[tuple[str, int]], world_size: int) -> list[int]:
    """Share replicated tensors out to the ranks: the largest first, each to the least loaded. Deterministic."""
    loads = [0] * world_size
    owners = [0] * len(sizes)
    for number in sorted(range(len(sizes)), key=lambda number: (-sizes[number][1], sizes[number][0])):
        owner = min(range(world_size), key=lambda rank: (loads[rank], rank))
        owners[number] = owner
        loads[owner] += sizes[number][1]
    return owners


def assign_families(members: Sequence[tuple[str, str, int]], world_size: int) -> list[int]:
    """Like `assign`, for (name, family, bytes): a family stays together, so that its members can be encoded together."""
    totals: dict[str, int] = {}
    for _, family, size in members:
        totals[family] = totals.get(family, 0) + size
    owners = dict(zip(totals, assign(list(totals.items()), world_size), strict=True))
    return [owners[family] for _, family, _ in members]


def lay_out(
    tensors: Sequence[torch.Tensor],
    names: Sequence[str],
    *,
    families: Mapping[str, str],
    replicated: bool,
    rank: int,
    world_size: int,
) -> Layout:
    """Make the table of `tensors`, which are checked; the role is each name's first part. Raises CheckpointError.

    `families`: for the name of a weight, the path of its optimizer's state. They are stored by the same rank.
    """
    if len(tensors) > MAX_TENSORS:
        raise CheckpointError(f"the state has {len(tensors)} tensors, over the limit of {MAX_TENSORS}")
    locals_ = [local_part(tensor) for tensor in tensors]
    sizes = [local.numel() * local.element_size() for local in locals_]
    unique = _unique(names)
    roles = [name.partition("/")[0] for name in names]
    blocks = {
        number: block_of(tensor, names[number], world_size)
        for number, tensor in enumerate(tensors)
        if is_distributed(tensor)
    }
    shared = [
        number
        for number, role in enumerate(roles)
        if (blocks[number].shard is None if number in blocks else replicated and role in REPLICATED_ROLES)
    ]
    members = [(unique[number], _family(names[number], families)) for number in range(len(names))]
    owners = dict(
        zip(shared, assign_families([(*members[number], sizes[number]) for number in shared], world_size), strict=True)
    )
    stored = {number: owner == rank for number, owner in owners.items()} | _stored_blocks(blocks, members, sizes)
    offsets = _offsets(locals_, sizes)
    return Layout(
        tuple(
            TensorSpec(
                name=unique[number],
                role=roles[number],
                dtype=dtype_name(local.dtype),
                shape=tuple(local.shape),
                offset=offsets[number],
                bytes=sizes[number],
                replicated=number in owners,
                stored=stored.get(number, True),
                shard=blocks[number].shard if number in blocks else None,
            )
            for number, local in enumerate(locals_)
        )
    )


def _family(name: str, families: Mapping[str, str]) -> str:
    if name.startswith("optimizer/"):
        return name.rpartition("/")[0]
    return families.get(name, name)


def _stored_blocks(
    blocks: dict[int, Block], members: Sequence[tuple[str, str]], sizes: Sequence[int]
) -> dict[int, bool]:
    """Of equal blocks one is stored, shared out over the replicas by what is the same on all ranks. Empty ones never."""
    stored = {}
    cut = {number: block for number, block in blocks.items() if block.shard is not None}
    for replicas in {block.replicas for block in cut.values()}:
        group = [number for number, block in cut.items() if block.replicas == replicas]
        owners = assign_families([(*members[number], cut[number].whole_bytes) for number in group], replicas)
        for number, owner in zip(group, owners, strict=True):
            stored[number] = sizes[number] > 0 and owner == cut[number].replica
    return stored


def _offsets(tensors: Sequence[torch.Tensor], sizes: Sequence[int]) -> list[int]:
    """The small ones first, those of one dtype and one remainder together; then the large ones in their order."""

    def order(number: int) -> tuple[bool, str, bool, int, int]:
        size = sizes[number]
        if size >= SMALL_BYTES:
            return (True, "", False, 0, number)
        ragged = size % ALIGNMENT != 0
        return (False, str(tensors[number].dtype), ragged, size if ragged else 0, number)

    offsets = [0] * len(tensors)
    end = 0
    for number in sorted(range(len(tensors)), key=order):
        offsets[number] = end
        end = align(end + sizes[number])
    return offsets


def check_tensor(tensor: torch.Tensor, path: str) -> None:
    """Raise CheckpointError for a tensor that a checkpoint cannot hold."""
    if torch.utils._python_dispatch.is_traceable_wrapper_subclass(tensor) and not is_distributed(tensor):  # noqa: SLF001
        raise CheckpointError(
            f"{path} is a {type(tensor).__qualname__}, a tensor made of others: give its parts, or an object with state_dict"
        )
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        raise CheckpointError(f"{path} is a {tensor.layout} tensor on {tensor.device}: only dense tensors can be saved")
    if dtype_name(tensor.dtype) not in ITEM_BYTES:
        raise CheckpointError(f"{path} has dtype {tensor.dtype}, which the checkpoint format does not have")
    if len(path) > MAX_NAME_CHARACTERS or tensor.dim() > MAX_DIMENSIONS:
        raise CheckpointError(f"{path[:100]}… has too long a name, or more than {MAX_DIMENSIONS} dimensions")


def _unique(names: Sequence[str]) -> list[str]:
    # Keys 1 and "1" of one dictionary have the same path.
    taken: set[str] = set()
    result = []
    for name in names:
        candidate, number = name, 1
        while candidate in taken:
            number += 1
            candidate = f"{name}#{number}"
        taken.add(candidate)
        result.append(candidate)
    return result
