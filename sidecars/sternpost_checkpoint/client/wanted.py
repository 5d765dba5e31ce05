"""What a rank's objects hold before a restore: which blocks it asks for, and which DTensors they become."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch

from sternpost_checkpoint.client.optimizer_state import with_state
from sternpost_checkpoint.client.sharded import from_block, is_distributed
from sternpost_checkpoint.client.snapshot import Snapshot, Snapshots
from sternpost_checkpoint.client.training import Training
from sternpost_checkpoint.errors import RestoreError
from sternpost_checkpoint.format.table import Meta, TensorSpec


class WantedState:
    """The table of model and optimizer as they are now, and their DTensors."""

    def __init__(self, specs: Mapping[str, TensorSpec], templates: Mapping[str, torch.Tensor]) -> None:
        self._specs = specs
        self._templates = templates

    def entries(self) -> list[dict[str, Any]]:
        """The blocks, as they stand in a `fetch` request; everything else is wanted whole."""
        return [
            {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape), "shard": spec.shard.to_json()}
            for spec in self._specs.values()
            if spec.shard is not None
        ]

    def check(self, meta: Meta) -> None:
        """Raise RestoreError where a state has a block of a tensor that this rank cannot take as it is."""
        for spec in meta.tensors:
            own = self._specs.get(spec.name)
            if own is None and spec.shard is None:
                continue
            if own is None:
                raise RestoreError(f"the state has only a block of {spec.name}, which this training does not have")
            if own.shard is None and spec.shard is None:
                continue  # of another shape: the object itself says best what does not fit
            if (own.shape, own.shard) != (spec.shape, spec.shard):
                raise RestoreError(
                    f"the state has another block of {spec.name} than this rank: {spec.shard or 'all'} of shape"
                    f" {list(spec.shape)}, not {own.shard or 'all'} of shape {list(own.shape)}"
                )

    def assembled(self, spec: TensorSpec, view: torch.Tensor | None) -> torch.Tensor | None:
        """The tensor that stands for table entry `spec` in the tree; `view` lies in the slot."""
        if view is None:
            return None
        # A module copies from what it is given; everything else may keep it, and the slot will be written again.
        tensor = view if spec.role == "model" else view.clone()
        template = self._templates.get(spec.name)
        return tensor if template is None else from_block(tensor, template)


def wanted_state(training: Training, snapshots: Snapshots) -> WantedState:
    """Look at the objects. An optimizer of DTensors is made to show its state for a moment."""
    with ExitStack() as stack:
        if training.is_sharded():
            for _, optimizer in training.optimizers():
                stack.enter_context(with_state(optimizer))
        snapshot: Snapshot = snapshots.take(training.objects())
    specs, whole = snapshot.layout.specs, snapshot.whole
    return WantedState(
        {spec.name: spec for spec in specs},
        {spec.name: tensor for spec, tensor in zip(specs, whole, strict=True) if is_distributed(tensor)},
    )
