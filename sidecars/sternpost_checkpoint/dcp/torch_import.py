"""A folder that torch.distributed.checkpoint has written, as a generation. Needs no torch, and runs nothing in it."""

from __future__ import annotations

import math
import mmap
import re
import struct
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.dcp import archive, unpickler
from sternpost_checkpoint.dcp.archive import ForeignTensor
from sternpost_checkpoint.dcp.tree import by_role, nest
from sternpost_checkpoint.dcp.unpickler import Dtype, Record
from sternpost_checkpoint.errors import CheckpointError, FormatError
from sternpost_checkpoint.format.documents import Manifest
from sternpost_checkpoint.format.dtypes import ITEM_BYTES
from sternpost_checkpoint.format.table import MAX_DIMENSIONS, MAX_TENSORS, TensorSpec, tensor_bytes
from sternpost_checkpoint.restore.blocks import Block, covers
from sternpost_checkpoint.shm.layout import align
from sternpost_checkpoint.transfer.writing import write_whole

METADATA = ".metadata"
MAX_DEPTH = 64
_FILE_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}\Z")


def import_dcp(catalog: Catalog, folder: Path, step: int | None) -> Manifest:
    """Store the checkpoint in `folder` as a new generation. Raises FormatError, CheckpointError."""
    checkpoint = _Checkpoint(folder)
    state = _State(checkpoint)
    nested = nest(checkpoint.values(), checkpoint.paths)
    trees = {}
    for role, value in by_role(nested).items():
        state.role = role
        trees[role] = state.encode(value, role, 0)
    return write_whole(catalog, step, state.specs, state.data, trees)


@dataclass(frozen=True)
class _Whole:
    """A tensor that the metadata describe."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    blocks: tuple[Block, ...]


class _Checkpoint:
    """The folder: its metadata, and its files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._where = str(folder / METADATA)
        self._files: dict[str, memoryview] = {}
        metadata = unpickler.load(bytes(self._map(METADATA)), self._where)
        if not isinstance(metadata, Record) or not metadata.name.endswith(".Metadata"):
            raise self._malformed("it is not the metadata of a checkpoint")
        entries, places = metadata.get("state_dict_metadata"), metadata.get("storage_data")
        if not isinstance(entries, dict) or not isinstance(places, dict) or len(entries) > MAX_TENSORS:
            raise self._malformed("its lists are malformed")
        self._entries, self._places = entries, places
        self.paths = self._paths(metadata.get("planner_data"))

    def values(self) -> dict[str, Any]:
        """Every value by its key: a `_Whole`, or what was saved as an object."""
        found: dict[str, Any] = {}
        for key, entry in self._entries.items():
            if not isinstance(key, str) or not isinstance(entry, Record):
                raise self._malformed("a key is malformed")
            if entry.name.endswith(".TensorStorageMetadata"):
                found[key] = self._whole(key, entry)
            else:
                found[key] = archive.read(*self._slice(key, None))
        return found

    def block(self, whole: _Whole, block: Block) -> ForeignTensor:
        """A block's tensor, as its file holds it. Raises FormatError when it is another than the metadata say."""
        data, where = self._slice(whole.key, block.start)
        tensor = archive.read(data, where)
        if not isinstance(tensor, ForeignTensor) or (tensor.dtype, tensor.shape) != (whole.dtype, block.shape):
            raise FormatError(
                f"{where}: {whole.key!r} is not the {whole.dtype} of shape {list(block.shape)} it should be"
            )
        return tensor

    def _whole(self, key: str, entry: Record) -> _Whole:
        properties, size, chunks = entry.get("properties"), entry.get("size"), entry.get("chunks")
        state = properties.state if isinstance(properties, Record) else None
        dtype = state[0] if isinstance(state, tuple) and state else None
        if not isinstance(dtype, Dtype) or not _extents(size) or not isinstance(chunks, list):
            raise self._malformed(f"the tensor {key!r} is malformed")
        tensor_bytes(dtype.dtype, size)
        blocks = []
        for chunk in chunks:
            start = chunk.get("offsets") if isinstance(chunk, Record) else None
            shape = chunk.get("sizes") if isinstance(chunk, Record) else None
            if not _extents(start) or not _extents(shape) or not len(start) == len(shape) == len(size):
                raise self._malformed(f"a block of {key!r} is malformed")
            if 0 not in shape:
                blocks.append(Block(start, shape))
        if not covers(Block.whole(size), blocks) or sum(block.elements for block in blocks) != math.prod(size):
            raise self._malformed(f"the blocks of {key!r} do not make up the tensor")
        return _Whole(key, dtype.dtype, size, tuple(blocks))

    def _slice(self, key: str, start: tuple[int, ...] | None) -> tuple[memoryview, str]:
        place = self._places.get(_index(key, start))
        if not isinstance(place, Record):
            raise self._malformed(f"it does not say where {key!r} is")
        name, offset, length = place.get("relative_path"), place.get("offset"), place.get("length")
        if not isinstance(name, str) or not _FILE_NAME.match(name):
            raise self._malformed(f"{key!r} is in {str(name)[:100]!r}, which is no file beside it")
        if place.get("transform_descriptors"):
            raise self._malformed(f"{key!r} is transformed by an extension: load it with torch and save it without")
        data = self._map(name)
        if (
            type(offset) is not int
            or type(length) is not int
            or offset < 0
            or length < 0
            or offset + length > len(data)
        ):
            raise FormatError(
                f"{self._folder / name} has {len(data)} bytes; {key!r} should be in it: it is cut or torn"
            )
        return data[offset : offset + length], f"{self._folder / name} at {offset}"

    def _map(self, name: str) -> memoryview:
        if name not in self._files:
            path = self._folder / name
            try:
                with path.open("rb") as file:
                    self._files[name] = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            except (OSError, ValueError) as error:
                raise CheckpointError(f"cannot read {path}: {error}") from error
        return self._files[name]

    def _paths(self, mappings: Any) -> dict[str, tuple[str | int, ...]]:
        if mappings is None:
            return {}
        if not isinstance(mappings, dict):
            raise self._malformed("its paths are malformed")
        for key, path in mappings.items():
            if (
                not isinstance(key, str)
                or not isinstance(path, tuple)
                or not 0 < len(path) <= MAX_DEPTH
                or not all(type(step) is str or (type(step) is int and 0 <= step < MAX_TENSORS) for step in path)
                or type(path[0]) is not str
            ):
                raise self._malformed(f"the path of {str(key)[:100]!r} is malformed")
        return mappings

    def _malformed(self, reason: str) -> FormatError:
        return FormatError(f"{self._where}: {reason}")


class _State:
    """The table of the generation in the making."""

    def __init__(self, checkpoint: _Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._offset = 0
        self.role = ""
        self.specs: list[TensorSpec] = []
        self.data: list[Callable[[], memoryview]] = []

    def encode(self, value: Any, path: str, depth: int) -> Any:  # noqa: PLR0911 # one return for each kind
        """The node of a value, as FORMAT.md describes nodes. Raises FormatError for what a checkpoint cannot hold."""
        if depth > MAX_DEPTH:
            raise FormatError(f"{path} is nested deeper than {MAX_DEPTH} levels")
        kind = type(value)
        if value is None or kind in (bool, str, int):
            return value
        if kind is float:
            return value if math.isfinite(value) else {"$": "float", "bits": struct.pack(">d", value).hex()}
        if kind in (bytes, bytearray):
            return {"$": "bytes", "base64": b64encode(value).decode()}
        if isinstance(value, _Whole):
            return self._add(path, value.dtype, value.shape, lambda: self._assemble(value))
        if isinstance(value, ForeignTensor):
            return self._add(path, value.dtype, value.shape, lambda: _dense(value).data.cast("B"))
        if isinstance(value, Dtype):
            return {"$": "dtype", "name": value.dtype}
        if kind is list:
            return [self.encode(item, f"{path}/{number}", depth + 1) for number, item in enumerate(value)]
        if kind is tuple:
            return {"$": "tuple", "items": self.encode(list(value), path, depth)}
        if kind is dict:
            return self._dictionary(value, path, depth)
        raise FormatError(
            f"{path} is a {value.name if isinstance(value, Record) else kind.__name__}: it cannot be held"
        )

    def _dictionary(self, value: dict[Any, Any], path: str, depth: int) -> Any:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: self.encode(item, f"{path}/{key}", depth + 1) for key, item in value.items()}
        items = []
        for key, item in value.items():
            if type(key) not in (str, int, float, bool, tuple, bytes, type(None)):
                raise FormatError(f"{path} has a key of type {type(key).__name__}")
            items.append([self.encode(key, f"{path}/<key>", depth + 1), self.encode(item, f"{path}/{key}", depth + 1)])
        return {"$": "dict", "items": items}

    def _add(self, name: str, dtype: str, shape: tuple[int, ...], data: Callable[[], memoryview]) -> Any:
        size = tensor_bytes(dtype, shape)
        self.specs.append(TensorSpec(name, self.role, dtype, shape, self._offset, size, replicated=True, stored=True))
        self.data.append(data)
        self._offset = align(self._offset + size)
        return {"$": "tensor", "index": len(self.specs) - 1}

    def _assemble(self, whole: _Whole) -> memoryview:
        if len(whole.blocks) == 1:
            return _flat(_dense(self._checkpoint.block(whole, whole.blocks[0])))
        target = np.empty(whole.shape, dtype=_word(whole.dtype))
        for block in whole.blocks:
            target[block.within(Block.whole(whole.shape))] = _dense(self._checkpoint.block(whole, block))
        return _flat(target)


def _index(key: str, start: tuple[int, ...] | None) -> Record:
    """Equal to the MetadataIndex that stands as a key in the metadata."""
    cls = type("MetadataIndex", (Record,), {"name": "torch.distributed.checkpoint.metadata.MetadataIndex"})
    made: Record = cls()
    made.state = {"fqn": key, "offset": start}
    return made


def _word(dtype: str) -> Any:
    """A numpy type as wide as an element: copying is all that is done with it."""
    return {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64, 16: np.complex128}[ITEM_BYTES[dtype]]


def _dense(tensor: ForeignTensor) -> np.ndarray[Any, np.dtype[Any]]:
    """Its elements in C order. What the strides reach was checked."""
    width = ITEM_BYTES[tensor.dtype]
    if 0 in tensor.shape:
        return np.empty(tensor.shape, dtype=_word(tensor.dtype))
    words = np.frombuffer(tensor.storage, dtype=_word(tensor.dtype), count=len(tensor.storage) // width)
    view = np.lib.stride_tricks.as_strided(
        words[tensor.start :], tensor.shape, [stride * width for stride in tensor.strides], writeable=False
    )
    return np.ascontiguousarray(view).reshape(tensor.shape)


def _flat(array: np.ndarray[Any, np.dtype[Any]]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")


def _extents(value: Any) -> TypeGuard[tuple[int, ...]]:
    return (
        isinstance(value, tuple)
        and len(value) <= MAX_DIMENSIONS
        and all(type(extent) is int and 0 <= extent < 2**48 for extent in value)
    )
