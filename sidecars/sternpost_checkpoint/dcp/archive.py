"""The file format of torch.save, read without running anything: a zip of stored entries, whose pickle names raw storages.

Entries lie in the file as they are, so there is nothing to unpack and no bomb; sizes are checked against the file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from sternpost_checkpoint.dcp import unpickler
from sternpost_checkpoint.dcp.unpickler import Record, Storage
from sternpost_checkpoint.errors import FormatError
from sternpost_checkpoint.format.dtypes import ITEM_BYTES
from sternpost_checkpoint.format.table import MAX_DIMENSIONS, tensor_bytes

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
MAX_ENTRIES = 100_000
MAX_VALUES = 200_000
"""In one object: a pickle can say the same list again and again, so that a small one unfolds without end."""
_FAR = 0xFFFFFFFF


@dataclass(frozen=True)
class ForeignTensor:
    """A tensor of the archive: its elements are strided in a storage."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """In elements."""
    start: int
    """Of the first element, in elements."""
    storage: memoryview


def read(data: memoryview, where: str) -> Any:
    """The object that torch.save was given; tensors as ForeignTensor. Raises FormatError."""
    entries = _entries(data, where)
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise FormatError(f"{where}: it does not hold exactly one data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    order = entries.get(f"{folder}byteorder")
    if order is not None and bytes(order) != b"little":
        raise FormatError(f"{where}: its numbers are not little endian")
    return _resolve(unpickler.load(bytes(entries[pickles[0]]), where), _Storages(entries, folder, where), 0)


@dataclass
class _Storages:
    entries: dict[str, memoryview]
    folder: str
    where: str
    values: int = 0

    def tensor(self, record: Record) -> ForeignTensor:
        """Undo `_rebuild_tensor_v2` or `_v3`."""
        arguments = record.arguments
        if len(arguments) < 4:
            raise FormatError(f"{self.where}: a tensor is malformed")
        pid, start, shape, strides = arguments[:4]
        if not _naturals(shape) or not _naturals(strides) or len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
            raise FormatError(f"{self.where}: a tensor's shape or strides are malformed")
        if not isinstance(pid, tuple) or not isinstance(pid[1], type) or not issubclass(pid[1], Storage):
            raise FormatError(f"{self.where}: a tensor has no storage")
        dtype = pid[1].dtype
        if record.name.endswith("_v3"):
            given = arguments[6] if len(arguments) > 6 else None
            if not isinstance(given, unpickler.Dtype):
                raise FormatError(f"{self.where}: a tensor has no dtype")
            dtype = given.dtype
        storage = self.entries.get(f"{self.folder}data/{pid[2]}")
        if storage is None:
            raise FormatError(f"{self.where}: the storage {str(pid[2])[:40]!r} is missing")
        tensor_bytes(dtype, tuple(shape))
        if type(start) is not int or start < 0:
            raise FormatError(f"{self.where}: a tensor's start is malformed")
        last = start + sum((extent - 1) * stride for extent, stride in zip(shape, strides, strict=True))
        if 0 not in shape and (last + 1) * ITEM_BYTES[dtype] > len(storage):
            raise FormatError(f"{self.where}: a tensor of shape {list(shape)} ends behind its storage")
        return ForeignTensor(dtype, tuple(shape), tuple(strides), start, storage)


def _resolve(value: Any, storages: _Storages, depth: int) -> Any:
    storages.values += 1
    if depth > MAX_DIMENSIONS or storages.values > MAX_VALUES:
        raise FormatError(f"{storages.where}: it is nested too deep, or holds too much")
    if isinstance(value, Record):
        if value.name == "torch._utils._rebuild_parameter" and value.arguments:
            return _resolve(value.arguments[0], storages, depth + 1)
        return storages.tensor(value) if value.name.startswith("torch._utils._rebuild_tensor_v") else value
    if type(value) is dict:
        return {key: _resolve(item, storages, depth + 1) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_resolve(item, storages, depth + 1) for item in value)
    return value


def _entries(data: memoryview, where: str) -> dict[str, memoryview]:
    try:
        count, position = _directory(data, where)
        found: dict[str, memoryview] = {}
        for _ in range(count):
            name, content, position = _entry(data, position, where)
            if name in found:
                raise FormatError(f"{where}: the entry {name[:60]!r} is there twice")
            found[name] = content
    except (struct.error, UnicodeDecodeError, ValueError, OverflowError) as error:
        raise FormatError(f"{where}: it is not an archive of torch.save: {error}") from error
    return found


def _directory(data: memoryview, where: str) -> tuple[int, int]:
    """Number of entries, and where the list of them begins."""
    tail = bytes(data[-(_END.size + 0xFFFF) :])
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or place + _END.size > len(tail):
        raise FormatError(f"{where}: it is not an archive of torch.save, or cut short")
    end = len(data) - len(tail) + place
    _, _, _, _, count, _, start, _ = _END.unpack_from(data, end)
    if start == _FAR or count == 0xFFFF:
        locator = end - _END64_LOCATOR.size
        if locator < 0:
            raise FormatError(f"{where}: it is cut short")
        _, _, end64, _ = _END64_LOCATOR.unpack_from(data, locator)
        if end64 + _END64.size > len(data):
            raise FormatError(f"{where}: its directory lies outside of it")
        *_, count, _, start = _END64.unpack_from(data, end64)
    if count > MAX_ENTRIES or start > len(data):
        raise FormatError(f"{where}: it claims {count} entries at {start}")
    return count, start


def _entry(data: memoryview, position: int, where: str) -> tuple[str, memoryview, int]:
    head = _CENTRAL.unpack_from(data, position)
    mark, flags, method = head[0], head[3], head[4]
    packed, size, name_length, extra_length, comment_length = head[8], head[9], head[10], head[11], head[12]
    local = head[16]
    position += _CENTRAL.size
    name = bytes(data[position : position + name_length]).decode()
    extra = data[position + name_length : position + name_length + extra_length]
    packed, size, local = _far_sizes(extra, packed, size, local)
    if mark != b"PK\x01\x02" or method != 0 or flags & 1 or packed != size:
        raise FormatError(f"{where}: the entry {name[:60]!r} is packed or encrypted, which torch.save never does")
    if local + _LOCAL.size > len(data):
        raise FormatError(f"{where}: the entry {name[:60]!r} lies outside of it")
    local_head = _LOCAL.unpack_from(data, local)
    if local_head[0] != b"PK\x03\x04":
        raise FormatError(f"{where}: the entry {name[:60]!r} is not where the directory says")
    start = local + _LOCAL.size + local_head[9] + local_head[10]
    if start + size > len(data):
        raise FormatError(f"{where}: the entry {name[:60]!r} ends behind it: {size} bytes at {start}")
    return name, data[start : start + size], position + name_length + extra_length + comment_length


def _far_sizes(extra: memoryview, packed: int, size: int, local: int) -> tuple[int, int, int]:
    """What does not fit into 32 bits stands in a field of its own."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        if kind == 1:
            wide = list(struct.unpack_from(f"<{length // 8}Q", extra, position + 4))
            size = wide.pop(0) if size == _FAR and wide else size
            packed = wide.pop(0) if packed == _FAR and wide else packed
            local = wide.pop(0) if local == _FAR and wide else local
        position += 4 + length
    return packed, size, local


def _naturals(value: Any) -> bool:
    return isinstance(value, tuple) and all(type(item) is int and 0 <= item < 2**48 for item in value)
