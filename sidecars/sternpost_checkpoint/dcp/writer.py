"""A StorageWriter for torch.distributed.checkpoint: what dcp.save and dcp.async_save give becomes a generation.

Shards first, then indexes, then the manifest, each with its hashes and durable; nothing that is written holds a pickle.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner, create_default_local_save_plan
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem, WriteItemType
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.client.tree import encode
from sternpost_checkpoint.dcp.session import Session, session_of
from sternpost_checkpoint.dcp.tree import by_role, nest
from sternpost_checkpoint.errors import CheckpointError
from sternpost_checkpoint.format.dtypes import ITEM_BYTES
from sternpost_checkpoint.format.table import Shard, TensorSpec, tensor_bytes
from sternpost_checkpoint.gc import collect
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.shm.layout import align
from sternpost_checkpoint.store.uri import OBJECT_SCHEMES, open_store
from sternpost_checkpoint.transfer.writing import Origin, Part, begin_run, commit, next_step, write_part

_STEP = re.compile(r"([0-9]{1,12})$")


@dataclass(frozen=True)
class _Order:
    """What the coordinator has decided, for each rank."""

    step: int
    run: int
    rank: int
    world_size: int
    replicated: bool
    saved_at: float
    save_id: str


class SternpostWriter(StorageWriter):
    """Writes to the storage at `uri`.

    The step is `step`, or the number at the end of the `checkpoint_id` that dcp.save was given, or one behind the newest
    generation. A process that has loaded from the same storage goes on from there; one that has not goes on from the newest
    generation, and a step that is not behind it is refused. With `keep` older generations are removed after the commit.
    """

    def __init__(self, uri: str, *, step: int | None = None, keep: int | None = None) -> None:
        """Raises StoreError for a URI that is none."""
        self.uri = uri
        self.step = step
        self.keep = keep
        self.generation: Generation | None = None
        """What was saved last; on the coordinator, after the save."""
        self._session: Session = session_of(uri)
        self._save_id = ""
        self._coordinator = False
        self._local: SavePlan | None = None
        open_store(uri)

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """A new save begins."""
        if checkpoint_id is not None:
            match = _STEP.search(os.fspath(checkpoint_id))
            if match is None:
                raise CheckpointError(
                    f"checkpoint_id {os.fspath(checkpoint_id)!r} does not end with the step: give one like 'step-100', or"
                    " SternpostWriter(uri, step=100)"
                )
            self.step = int(match.group(1))
        self._save_id = uuid.uuid4().hex

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 # torch's
        """Learn the role; saving without collectives is refused, for there is one manifest for all ranks."""
        self._coordinator = is_coordinator
        if kwargs.get("use_collectives") is False:
            raise CheckpointError("SternpostWriter needs use_collectives=True: one manifest stands for all ranks")

    def storage_meta(self) -> StorageMeta | None:
        """For torch's logs."""
        return StorageMeta(checkpoint_id=self.uri, save_id=self._save_id)

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Remember what this rank holds; what others hold, too, is stored by one."""
        self._local = plan
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """On the coordinator: decide step and run. Raises CheckpointError when this state cannot be the next one."""
        if not all(plan.usable for plan in plans):
            raise CheckpointError(
                "SternpostWriter needs the whole plan of each save: use DefaultSavePlanner(enable_plan_caching=False)"
            )
        catalog = self._catalog()
        step = self.step if self.step is not None else next_step(catalog)
        run = begin_run(catalog, Origin.of(), step, restored=self._session.restored, token=self._session.token)
        replicated = not any(item.type is WriteItemType.SHARD for plan in plans for item in plan.items)
        order = _Order(step, run, 0, len(plans), replicated, time.time(), uuid.uuid4().hex)
        return [replace(plan, storage_data=replace(order, rank=rank)) for rank, plan in enumerate(plans)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Store this rank's part."""
        order = plan.storage_data
        if not isinstance(order, _Order):
            raise CheckpointError("the planner has not passed on the plan's storage_data: SternpostWriter needs it")
        table = _Table(planner, self._all_items(planner, plan), plan.items)
        part = Part(
            Generation(order.step, order.run),
            order.rank,
            order.world_size,
            table.specs,
            table.data,
            table.trees,
            order.replicated,
            order.saved_at,
        )
        index = write_part(self._catalog(), part, Origin.of())
        stored = {entry.tensor: entry.stored_bytes for entry in index.stored}
        sizes = {key: stored.get(number, 0) for key, number in table.numbers.items()}
        results = [
            WriteResult(item.index, sizes.get((item.index.fqn, item.index.offset), 0), storage_data=order.save_id)
            for item in plan.items
        ]
        future: Future[list[WriteResult]] = Future()
        future.set_result(results)
        self.generation = part.generation
        return future

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:  # noqa: ARG002 # torch's
        """On the coordinator: the manifest, which makes the generation complete; then, with `keep`, the collection."""
        if self.generation is None:
            raise CheckpointError("nothing was written")
        catalog = self._catalog()
        commit(catalog, self.generation, len(results))
        if self.keep is not None:
            collect(catalog, self.keep)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Whether it is the URI of a storage."""
        return os.fspath(checkpoint_id).partition("://")[0] in ("file", *OBJECT_SCHEMES)

    def _catalog(self) -> Catalog:
        # Opened where it is used: a writer may be sent to another process.
        return Catalog(open_store(self.uri))

    def _all_items(self, planner: SavePlanner, plan: SavePlan) -> Sequence[WriteItem]:
        """What this rank holds, also what others store; the table and the trees are of all of it."""
        if isinstance(planner, DefaultSavePlanner):
            return create_default_local_save_plan(planner.state_dict, self._coordinator).items
        return self._local.items if self._local is not None else plan.items


class _Table:
    """The table and the trees of a rank, and how to get each tensor's bytes."""

    def __init__(self, planner: SavePlanner, items: Sequence[WriteItem], mine: Sequence[WriteItem]) -> None:
        self._planner = planner
        self._mine = {(item.index.fqn, item.index.offset) for item in mine}
        self._by_key: dict[str, WriteItem] = {}
        self._keys: dict[int, str] = {}
        self._names: set[str] = set()
        self._role = ""
        self._offset = 0
        self.specs: list[TensorSpec] = []
        self.data: list[Callable[[], memoryview]] = []
        self.numbers: dict[tuple[str, Any], int] = {}
        values: dict[str, Any] = {}
        for item in items:
            key = item.index.fqn
            if key in self._by_key:
                raise CheckpointError(
                    f"this rank holds several blocks of {key!r}; a checkpoint can hold one for each rank"
                )
            self._by_key[key] = item
            values[key] = self._placeholder(key) if item.type is not WriteItemType.BYTE_IO else self._plain(item)
        nested = nest(values, getattr(planner, "mappings", {}))
        self.trees: dict[str, Any] = {}
        for role, value in by_role(nested).items():
            self._role = role
            self.trees[role] = encode(value, role, self._take)

    def _placeholder(self, key: str) -> torch.Tensor:
        made = torch.empty(0)
        self._keys[id(made)] = key
        return made

    def _plain(self, item: WriteItem) -> Any:
        look_up = getattr(self._planner, "lookup_object", None)
        if look_up is None:
            raise CheckpointError(
                f"{item.index.fqn!r} is no tensor, and {type(self._planner).__name__} gives it only as a pickle: derive the"
                " planner from DefaultSavePlanner"
            )
        return look_up(item.index)

    def _take(self, tensor: torch.Tensor, path: str) -> int:
        key = self._keys.get(id(tensor))
        if key is None:
            # Inside of a plain value, which all ranks hold and rank 0 of those that do stores.
            self._add(path, _dtype_of(tensor.dtype, path), tuple(tensor.shape), None, stored=True, replicated=False)
            self.data.append(lambda: _bytes_of(tensor))
            return len(self.specs) - 1
        item = self._by_key[key]
        description = item.tensor_data
        if description is None:
            raise CheckpointError(f"the plan does not describe the tensor {key!r}")
        sizes, offsets = tuple(description.chunk.sizes), tuple(description.chunk.offsets)
        shard = None if sizes == tuple(description.size) else Shard(tuple(description.size), offsets)
        mine = (key, item.index.offset) in self._mine and 0 not in sizes
        self.numbers[key, item.index.offset] = len(self.specs)
        dtype = _dtype_of(description.properties.dtype, key)
        stored = mine or (shard is None and 0 in sizes and (key, item.index.offset) in self._mine)
        self._add(path, dtype, sizes, shard, stored=stored, replicated=shard is None)
        self.data.append(lambda: self._resolve(item))
        return len(self.specs) - 1

    def _add(
        self,
        name: str,
        dtype: str,
        shape: tuple[int, ...],
        shard: Shard | None,
        *,
        stored: bool,
        replicated: bool,
    ) -> None:
        size = tensor_bytes(dtype, shape)
        spec = TensorSpec(name, self._role, dtype, shape, self._offset, size, replicated, stored, shard)
        if name in self._names:
            raise CheckpointError(f"two tensors of the state would have the name {name!r}: a key holds a slash")
        self._names.add(name)
        self.specs.append(spec)
        self._offset = align(self._offset + size)

    def _resolve(self, item: WriteItem) -> memoryview:
        value = self._planner.resolve_data(item)
        if not isinstance(value, torch.Tensor):
            raise CheckpointError(f"the planner gives {item.index.fqn!r} as {type(value).__name__}, not as a tensor")
        return _bytes_of(value)


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise CheckpointError("a sparse or quantized tensor cannot be held in a checkpoint: make it dense")
    flat = tensor.detach().to("cpu").resolve_conj().resolve_neg().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def _dtype_of(dtype: torch.dtype, what: str) -> str:
    name = str(dtype).removeprefix("torch.")
    if name not in ITEM_BYTES:
        raise CheckpointError(f"{what!r} is of {name}, which a checkpoint cannot hold")
    return name
