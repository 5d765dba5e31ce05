"""safetensors: written in place, so that a model larger than memory can be exported; read through the file's mapping.

The library's numpy interface knows no bf16 and no fp8, and wants every tensor in memory at once; the format is eight bytes of
length, a JSON header and the tensors. The tests read what is written here with the library, and the other way round.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from sternpost_checkpoint.errors import CheckpointError, FormatError
from sternpost_checkpoint.format.dtypes import ITEM_BYTES
from sternpost_checkpoint.format.table import MAX_DIMENSIONS, MAX_NAME_CHARACTERS, MAX_TENSORS, tensor_bytes

CODES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "bfloat16": "BF16",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
}
_DTYPES = {code: dtype for dtype, code in CODES.items()}
MAX_HEADER_BYTES = 100_000_000
"""The library's own limit."""


@dataclass(frozen=True)
class Entry:
    """A tensor in a file: `start` and `end` count from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def lay_out(tensors: Sequence[tuple[str, str, tuple[int, ...]]]) -> list[Entry]:
    """Places for (name, dtype, shape): the widest elements first, so that all are aligned. Raises FormatError."""
    entries, end = [], 0
    for name, dtype, shape in sorted(tensors, key=lambda tensor: (-ITEM_BYTES[tensor[1]], tensor[0])):
        if dtype not in CODES:
            raise FormatError(f"{name!r} is of {dtype}, which safetensors does not have: leave it out, or `restore` it")
        start, end = end, end + tensor_bytes(dtype, shape)
        entries.append(Entry(name, dtype, shape, start, end))
    return entries


def header(entries: Sequence[Entry], metadata: dict[str, str]) -> bytes:
    """The file's beginning: length and JSON, padded to eight bytes."""
    value: dict[str, Any] = {"__metadata__": metadata}
    for entry in entries:
        value[entry.name] = {
            "dtype": CODES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [entry.start, entry.end],
        }
    data = json.dumps(value, separators=(",", ":")).encode()
    data += b" " * (-len(data) % 8)
    return len(data).to_bytes(8, "little") + data


class SafetensorsFile:
    """A file to read from; its header is checked as a whole before anything is believed."""

    def __init__(self, path: Path) -> None:
        """Raises CheckpointError when it cannot be read, FormatError when it is not a safetensors file."""
        self.path = path
        try:
            with path.open("rb") as file:
                self._data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as error:  # ValueError: an empty file
            raise CheckpointError(f"cannot read {path}: {error}") from error
        self.metadata, self.entries = _parse(self._data, path)
        length = int.from_bytes(self._data[:8], "little")
        self._base = 8 + length

    def data(self, entry: Entry) -> memoryview:
        """The bytes of a tensor, without a copy."""
        return self._data[self._base + entry.start : self._base + entry.end]


def _parse(data: memoryview, path: Path) -> tuple[dict[str, str], list[Entry]]:
    if len(data) < 8:
        raise FormatError(f"{path} has {len(data)} bytes: it is no safetensors file")
    length = int.from_bytes(data[:8], "little")
    if length > min(MAX_HEADER_BYTES, len(data) - 8):
        raise FormatError(f"{path}: a header of {length} bytes does not fit: it is no safetensors file, or cut short")
    try:
        value = json.loads(bytes(data[8 : 8 + length]), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: the header is not JSON ({error})") from error
    if not isinstance(value, dict) or len(value) > MAX_TENSORS:
        raise FormatError(f"{path}: the header is not an object of at most {MAX_TENSORS} tensors")
    metadata = value.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise FormatError(f"{path}: the metadata are not texts")
    entries = sorted((_entry(name, item, path) for name, item in value.items()), key=lambda e: (e.start, e.end))
    end = 0
    for entry in entries:
        if entry.start != end:
            raise FormatError(f"{path}: tensor {entry.name!r} begins at {entry.start}, the one before ends at {end}")
        end = entry.end
    if end != len(data) - 8 - length:
        raise FormatError(
            f"{path}: the tensors end at {end}, the file holds {len(data) - 8 - length}: it is cut or torn"
        )
    return metadata, entries


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name occurs twice")
    return value


def _entry(name: str, item: Any, path: Path) -> Entry:
    where = f"{path}: tensor {name[:100]!r}"
    if not 0 < len(name) <= MAX_NAME_CHARACTERS or not isinstance(item, dict):
        raise FormatError(f"{where} is malformed")
    code, shape, offsets = item.get("dtype"), item.get("shape"), item.get("data_offsets")
    if not isinstance(code, str) or code not in _DTYPES:
        raise FormatError(f"{where} is of {str(code)[:40]!r}, which checkpoints do not have")
    if not _naturals(shape) or len(shape) > MAX_DIMENSIONS or not _naturals(offsets) or len(offsets) != 2:
        raise FormatError(f"{where}: shape or offsets are malformed")
    try:
        size = tensor_bytes(_DTYPES[code], tuple(shape))
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from error
    if offsets[1] - offsets[0] != size:
        raise FormatError(f"{where}: {offsets[1] - offsets[0]} bytes do not match {code} of shape {shape}")
    return Entry(name, _DTYPES[code], tuple(shape), offsets[0], offsets[1])


def _naturals(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and 0 <= item <= math.inf for item in value)
