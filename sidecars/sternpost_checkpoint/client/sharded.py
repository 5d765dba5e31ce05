"""DTensors as the format's blocks: which part of the whole this rank holds, and which of several equal parts is stored."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

import torch

from sternpost_checkpoint.errors import CheckpointError
from sternpost_checkpoint.format.table import Shard


def distributed_kind() -> type[Any] | None:
    """The class DTensor, if somebody has imported it, which takes long; else there are no DTensors."""
    return getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)


def is_distributed(tensor: object) -> bool:
    """Whether it is a DTensor."""
    kind = distributed_kind()
    return kind is not None and isinstance(tensor, kind)


@dataclass(frozen=True)
class Block:
    """What a rank holds of a DTensor."""

    shard: Shard | None
    """None: every rank holds the whole."""
    replicas: int
    """So many ranks hold this very block."""
    replica: int
    """Which of them this rank is, from 0; the same on equal coordinates, whatever the block."""
    whole_bytes: int
    """Of the tensor that the block is a part of: equal on all ranks, other than the block's."""


def local_part(tensor: Any) -> torch.Tensor:
    """The part of `tensor` that is in this process: itself, unless it is a DTensor."""
    part: torch.Tensor = tensor
    if is_distributed(tensor):
        with torch.no_grad():
            part = tensor.to_local()
            wait = getattr(part, "wait", None)  # a collective may still be filling it
            part = wait() if callable(wait) else part
    return part


def facts_of(tensor: Any) -> tuple[Any, ...]:
    """Everything that the block of a DTensor depends on, to be compared."""
    return (tuple(tensor.shape), tensor.placements, tensor.device_mesh)


def block_of(tensor: Any, path: str, world_size: int) -> Block:
    """Tell which block of the whole `tensor`, a DTensor, is here. Raises CheckpointError where it is no plain block."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset  # noqa: PLC0415 # takes long

    mesh, placements = tensor.device_mesh, tensor.placements
    coordinate = mesh.get_coordinate()
    if coordinate is None or mesh.size() != world_size:
        raise CheckpointError(
            f"{path} is a DTensor on a mesh of {mesh.size()} of {world_size} ranks: only tensors on a mesh of all ranks can"
            " be saved; for data parallelism around tensor parallelism use one mesh with both dimensions and fully_shard"
        )
    if any(placement.is_partial() for placement in placements):
        raise CheckpointError(f"{path} is a DTensor with partial sums: call redistribute before it is saved")
    whole = tuple(tensor.shape)
    shape, start = compute_local_shape_and_global_offset(whole, mesh, placements)
    local = tuple(local_part(tensor).shape)
    if tuple(shape) != local:
        raise CheckpointError(
            f"{path} has the placements {placements}, and its part of shape {local} is no plain block: only Shard and"
            " Replicate are supported"
        )
    replicas, replica = 1, 0
    for size, place, placement in zip(mesh.shape, coordinate, placements, strict=True):
        if placement.is_replicate():
            replicas, replica = replicas * size, replica * size + place
    return Block(
        shard=None if replicas == world_size else Shard(whole, tuple(start)),
        replicas=replicas,
        replica=replica,
        whole_bytes=math.prod(whole) * tensor.element_size(),
    )


def from_block(block: torch.Tensor, template: Any) -> torch.Tensor:
    """A DTensor like `template` whose local part is `block`."""
    made: torch.Tensor = type(template).from_local(
        block.to(template.device),
        template.device_mesh,
        template.placements,
        run_check=False,
        shape=template.shape,
        stride=template.stride(),
    )
    return made
