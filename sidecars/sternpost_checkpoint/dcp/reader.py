"""A StorageReader for torch.distributed.checkpoint: dcp.load from a generation, whoever saved it and with how many ranks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner, ReadItem
from torch.distributed.checkpoint.storage import StorageReader
from torch.futures import Future

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.client.tree import decode
from sternpost_checkpoint.dcp import session
from sternpost_checkpoint.dcp.contents import Contents
from sternpost_checkpoint.errors import CheckpointError, FormatError, NotFoundError
from sternpost_checkpoint.format.names import generation_label
from sternpost_checkpoint.lineage import Generation, newest
from sternpost_checkpoint.restore.reader import GenerationReader
from sternpost_checkpoint.restore.wanted import Wanted
from sternpost_checkpoint.store.uri import OBJECT_SCHEMES, open_store

BATCH_BYTES = 512 * 2**20
"""Of buffers between the storage and tensors that cannot be filled in place: on a device, or not dense."""


@dataclass
class _Load:
    """One item of the plan, and the buffer that it is read into."""

    item: ReadItem
    target: torch.Tensor
    buffer: torch.Tensor
    wanted: Wanted

    @property
    def extra_bytes(self) -> int:
        """Beside the target."""
        return 0 if self.buffer is self.target else self.buffer.numel() * self.buffer.element_size()


class SternpostReader(StorageReader):
    """Reads the newest generation of the storage at `uri`, or that of `step` (of its newest run, or of `run`).

    Every byte is verified. What this process saves afterwards with SternpostWriter goes on from what was loaded.
    """

    def __init__(self, uri: str, *, step: int | None = None, run: int | None = None) -> None:
        """Raises StoreError for a URI that is none."""
        self.uri = uri
        self.step = step
        self.run = run
        self.generation: Generation | None = None
        """What is read; known once the load has begun."""
        self._catalog = Catalog(open_store(uri))
        self._contents: Contents | None = None

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """A new load begins. A `checkpoint_id` ends with the step."""
        if checkpoint_id is not None:
            digits = os.fspath(checkpoint_id)[len(os.fspath(checkpoint_id).rstrip("0123456789")) :]
            if not digits:
                raise CheckpointError(f"checkpoint_id {os.fspath(checkpoint_id)!r} does not end with the step")
            self.step = int(digits)
        self._contents = None

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:  # noqa: ARG002 # torch's
        """What there is. Raises NotFoundError, FormatError, StoreError."""
        self.generation = self._choose()
        contents = self._contents = Contents(GenerationReader(self._catalog, self.generation))
        entries: dict[str, Any] = {}
        for key, value in contents.values.items():
            if value.tensor is None:
                entries[key] = BytesStorageMetadata()
                continue
            entries[key] = TensorStorageMetadata(
                properties=TensorProperties(dtype=getattr(torch, value.tensor.dtype)),
                size=torch.Size(value.tensor.shape),
                chunks=[
                    ChunkStorageMetadata(torch.Size(block.start), torch.Size(block.shape))
                    for block in value.tensor.blocks
                ],
            )
        return Metadata(
            state_dict_metadata=entries,
            planner_data={key: value.path for key, value in contents.values.items()},
            storage_data=None,
            storage_meta=StorageMeta(checkpoint_id=self.uri, load_id=generation_label(self.generation)),
        )

    def set_up_storage_reader(
        self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any
    ) -> None:  # torch's
        """Nothing: `read_metadata` has done it."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Say which generation this rank has found."""
        return replace(plan, storage_data=self.generation)

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """On the coordinator: all ranks must read one generation. Raises CheckpointError when a save came in between."""
        found = {plan.storage_data for plan in plans}
        if len(found) > 1:
            labels = ", ".join(sorted(generation_label(generation) for generation in found))
            raise CheckpointError(
                f"the ranks have found different newest generations ({labels}): load again, or name a step"
            )
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Fill what this rank has asked for."""
        contents = self._contents
        if contents is None or self.generation is None:
            raise CheckpointError("read_metadata comes before read_data")
        tensors = [item for item in plan.items if item.type is not LoadItemType.BYTE_IO]
        for batch in _batches(self._loads(contents, tensors, planner)):
            contents.reader.read(load.wanted for load in batch)
            for load in batch:
                if load.buffer is not load.target:
                    load.target.copy_(load.buffer)
                planner.commit_tensor(load.item, load.target)
        for item in plan.items:
            if item.type is LoadItemType.BYTE_IO:
                _set_plain(planner, item, self._plain(contents, item.storage_index.fqn))
        session.restored(self.uri, self.generation)
        future: Future[None] = Future()
        future.set_result(None)
        return future

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Whether it is the URI of a storage."""
        return os.fspath(checkpoint_id).partition("://")[0] in ("file", *OBJECT_SCHEMES)

    def _choose(self) -> Generation:
        complete = [files.generation for files in self._catalog.generations() if files.complete]
        if self.step is not None:
            complete = [item for item in complete if item.step == self.step and self.run in (None, item.run)]
        runs = self._catalog.runs() if self.run is None else []
        found = newest(complete, runs)
        if found is None:
            what = "complete generation" if self.step is None else f"complete generation of step {self.step}"
            raise NotFoundError(
                f"{self.uri} has no {what} on the current line; `sternpost-checkpoint ls` shows what there is"
            )
        return found

    def _loads(self, contents: Contents, items: Sequence[ReadItem], planner: LoadPlanner) -> Iterator[_Load]:
        for item in items:
            key = item.storage_index.fqn
            tensor = contents.values[key].tensor
            if tensor is None:
                raise FormatError(f"{key!r} is no tensor in the checkpoint")
            target = planner.resolve_tensor(item).detach()
            shape = tuple(item.lengths)
            base = tuple(item.storage_index.offset or (0,) * len(shape))
            start = tuple(begin + more for begin, more in zip(base, item.storage_offsets, strict=True))
            dtype = getattr(torch, tensor.dtype)
            direct = target.device.type == "cpu" and target.is_contiguous() and target.dtype == dtype
            buffer = target if direct and tuple(target.shape) == shape else torch.empty(shape, dtype=dtype)
            wanted = Wanted(tensor.name, tensor.dtype, shape, _memory(buffer), tensor.rank, start, tensor.shape)
            yield _Load(item, target, buffer, wanted)

    def _plain(self, contents: Contents, key: str) -> Any:
        value = contents.values[key]
        tensors: dict[int, torch.Tensor] = {}
        wanted = []
        for number in value.inner:
            spec = value.part.specs[number]
            buffer = torch.from_numpy(np.zeros(spec.bytes, dtype=np.uint8))
            wanted.append(Wanted(spec.name, spec.dtype, spec.shape, _memory(buffer), rank=value.part.index.rank))
            tensors[number] = buffer.view(getattr(torch, spec.dtype)).reshape(spec.shape)
        contents.reader.read(wanted)
        return decode(value.encoded, [tensors.get(number) for number in range(len(value.part.specs))])


def _memory(tensor: torch.Tensor) -> memoryview:
    if not tensor.numel():
        return memoryview(bytearray())
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _batches(loads: Iterator[_Load]) -> Iterator[list[_Load]]:
    batch: list[_Load] = []
    size = 0
    for load in loads:
        if batch and size + load.extra_bytes > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(load)
        size += load.extra_bytes
    if batch:
        yield batch


def _set_plain(planner: LoadPlanner, item: ReadItem, value: Any) -> None:
    """Do what the default planner does with the object, without the pickle that it would take it from."""
    if not isinstance(planner, DefaultLoadPlanner) or type(planner).load_bytes is not DefaultLoadPlanner.load_bytes:
        raise CheckpointError(
            f"{item.dest_index.fqn!r} is no tensor, and {type(planner).__name__} takes it only as a pickle: derive the"
            " planner from DefaultLoadPlanner and leave load_bytes as it is"
        )
    key = item.dest_index.fqn
    if not planner.flatten_state_dict:
        planner.state_dict[key] = value
        return
    place: Any = planner.original_state_dict
    path = planner.mappings[key]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
