"""From objects to a tree and a list of tensors, laid out for a slot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sternpost_checkpoint.client.tree import encode
from sternpost_checkpoint.errors import CheckpointError
from sternpost_checkpoint.format.dtypes import ITEM_BYTES
from sternpost_checkpoint.format.table import Meta, TensorSpec
from sternpost_checkpoint.shm.layout import align

ROLES = ("model", "optimizer", "extra", "random")
"""In the order of the table: the random states stand last."""
REPLICATED_ROLES = ("model", "optimizer")


@dataclass(frozen=True)
class Snapshot:
    """A state, not copied yet."""

    meta: Meta
    tensors: list[torch.Tensor]
    """The source of each table entry."""


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


def take_snapshot(states: dict[str, Any], *, replicated: bool, rank: int, world_size: int) -> Snapshot:
    """Lay a state out. `states` has the roles as keys. Raises CheckpointError for what a checkpoint cannot hold."""
    tensors: list[torch.Tensor] = []
    names: list[str] = []
    roles: list[str] = []
    trees: dict[str, Any] = {}
    for role in ROLES:
        if role not in states:
            continue
        seen: dict[tuple[Any, ...], int] = {}

        def take(tensor: torch.Tensor, path: str, role: str = role, seen: dict[tuple[Any, ...], int] = seen) -> int:
            _check(tensor, path)
            key = (tensor.data_ptr(), tensor.dtype, tensor.device, tuple(tensor.shape), tensor.stride())
            # Tied weights are one tensor under two names. Empty ones have no address to tell them apart.
            if tensor.numel() and key in seen:
                return seen[key]
            seen[key] = len(tensors)
            tensors.append(tensor.detach())
            names.append(path)
            roles.append(role)
            return len(tensors) - 1

        trees[role] = encode(states[role], role, take)
    unique = _unique(names)
    sizes = [tensor.numel() * tensor.element_size() for tensor in tensors]
    shared = [number for number, role in enumerate(roles) if replicated and role in REPLICATED_ROLES]
    owners = dict(zip(shared, assign([(unique[number], sizes[number]) for number in shared], world_size), strict=True))
    specs, offset = [], 0
    for number, tensor in enumerate(tensors):
        specs.append(
            TensorSpec(
                name=unique[number],
                role=roles[number],
                dtype=dtype_name(tensor.dtype),
                shape=tuple(tensor.shape),
                offset=offset,
                bytes=sizes[number],
                replicated=number in owners,
                stored=owners.get(number, rank) == rank,
            )
        )
        offset = align(offset + sizes[number])
    return Snapshot(Meta(replicated=replicated, trees=trees, tensors=tuple(specs)), tensors)


def _check(tensor: torch.Tensor, path: str) -> None:
    if type(tensor).__name__ == "DTensor":
        raise CheckpointError(f"{path} is a DTensor: FSDP and tensor parallelism are not supported yet, DDP is")
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        raise CheckpointError(f"{path} is a {tensor.layout} tensor on {tensor.device}: only dense tensors can be saved")
    if dtype_name(tensor.dtype) not in ITEM_BYTES:
        raise CheckpointError(f"{path} has dtype {tensor.dtype}, which the checkpoint format does not have")


def _unique(names: list[str]) -> list[str]:
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
