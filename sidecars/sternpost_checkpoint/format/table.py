"""The meta JSON of a slot: the tree of plain values and the table of tensors. Standard library only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sternpost_checkpoint.errors import FormatError
from sternpost_checkpoint.format.dtypes import ITEM_BYTES
from sternpost_checkpoint.format.names import FORMAT
from sternpost_checkpoint.shm.layout import ALIGNMENT, align

MAX_TENSORS = 1_000_000
MAX_NAME_CHARACTERS = 4096
MAX_DIMENSIONS = 64
MAX_TENSOR_BYTES = 2**48


@dataclass(frozen=True)
class Shard:
    """Where a block lies in the larger tensor that it is a part of: of a DTensor, its local part."""

    shape: tuple[int, ...]
    """The larger tensor's extents."""
    start: tuple[int, ...]
    """The block's first element in it, for each dimension."""

    def to_json(self) -> dict[str, Any]:
        """As it stands in a table entry."""
        return {"shape": list(self.shape), "start": list(self.start)}


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a state."""

    name: str
    """ROLE/PATH; never used as a file name."""
    role: str
    """`model`, `optimizer`, `extra` or `random`."""
    dtype: str
    shape: tuple[int, ...]
    offset: int
    """In the payload, a multiple of 64."""
    bytes: int
    replicated: bool
    """Every rank holds the same values."""
    stored: bool
    """This rank's sidecar stores it; for a replicated tensor, and for equal blocks, exactly one does."""
    shard: Shard | None = None
    """This is a block of a larger tensor, and `shape` the block's; None: the whole."""

    def to_json(self) -> dict[str, Any]:
        """The table entry."""
        entry: dict[str, Any] = {
            "name": self.name,
            "role": self.role,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "offset": self.offset,
            "bytes": self.bytes,
            "replicated": self.replicated,
            "stored": self.stored,
        }
        if self.shard is not None:
            entry["shard"] = self.shard.to_json()
        return entry


@dataclass(frozen=True)
class Meta:
    """Everything of a state but the bytes of its tensors."""

    replicated: bool
    trees: dict[str, Any]
    """Role to encoded tree (client/tree.py); tensors stand in it by their index in the table."""
    tensors: tuple[TensorSpec, ...]

    @property
    def payload_bytes(self) -> int:
        """Bytes of the payload that this table needs."""
        return max((spec.offset + spec.bytes for spec in self.tensors), default=0)

    def to_bytes(self) -> bytes:
        """The JSON, as it stands in a slot."""
        value = {
            "format": FORMAT,
            "replicated": self.replicated,
            "trees": self.trees,
            "tensors": [spec.to_json() for spec in self.tensors],
        }
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def tensor_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Size of a dense tensor. Raises FormatError for an unknown dtype or an absurd size."""
    if dtype not in ITEM_BYTES:
        raise FormatError(f"unknown dtype {dtype!r}")
    size = ITEM_BYTES[dtype]
    for extent in shape:
        size *= extent
        if size > MAX_TENSOR_BYTES:
            raise FormatError(f"a tensor of shape {list(shape)} is over the limit of {MAX_TENSOR_BYTES} bytes")
    return size


def _bytes_of(dtype: str, shape: list[int], at: str) -> int:
    try:
        return tensor_bytes(dtype, tuple(shape))
    except FormatError as error:
        raise FormatError(f"{at}: {error}") from error


def parse_spec(value: Any, where: str) -> TensorSpec:
    """Validate one table entry. Raises FormatError naming `where` and the rule that was broken."""
    if not isinstance(value, dict):
        raise FormatError(f"{where}: a tensor entry is not an object")
    name, role, dtype = value.get("name"), value.get("role"), value.get("dtype")
    shape, offset, size = value.get("shape"), value.get("offset"), value.get("bytes")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARACTERS:
        raise FormatError(f"{where}: a tensor's name must be 1 to {MAX_NAME_CHARACTERS} characters")
    at = f"{where}: tensor {name!r}"
    if role not in ("model", "optimizer", "extra", "random") or not name.startswith(f"{role}/"):
        raise FormatError(f"{at}: the role {role!r} is unknown or not the name's prefix")
    if not isinstance(dtype, str) or not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
        raise FormatError(f"{at}: dtype or shape is malformed")
    # `type(...) is int`: JSON's true is an int to isinstance.
    if not _naturals(shape):
        raise FormatError(f"{at}: an extent of the shape is not a natural number")
    if (
        type(offset) is not int
        or type(size) is not int
        or offset < 0
        or offset % ALIGNMENT
        or offset > MAX_TENSOR_BYTES
    ):
        raise FormatError(f"{at}: offset or size is malformed")
    if _bytes_of(dtype, shape, at) != size:
        raise FormatError(f"{at}: {size} bytes do not match {dtype} of shape {shape}")
    replicated, stored = value.get("replicated"), value.get("stored")
    if not isinstance(replicated, bool) or not isinstance(stored, bool):
        raise FormatError(f"{at}: replicated and stored must be booleans")
    shard = _parse_shard(value["shard"], dtype, tuple(shape), at) if "shard" in value else None
    if shard is not None and replicated:
        raise FormatError(f"{at}: a block of a larger tensor is not replicated; equal blocks name the same start")
    unknown = value.keys() - _KEYS
    if unknown:
        raise FormatError(f"{at}: the key {min(unknown)!r} is unknown")
    return TensorSpec(name, role, dtype, tuple(shape), offset, size, replicated, stored, shard)


_KEYS = frozenset({"name", "role", "dtype", "shape", "offset", "bytes", "replicated", "stored", "shard"})


def _naturals(values: list[Any]) -> bool:
    return all(type(value) is int and value >= 0 for value in values)


def _parse_shard(value: Any, dtype: str, extents: tuple[int, ...], at: str) -> Shard:
    if not isinstance(value, dict) or value.keys() != {"shape", "start"}:
        raise FormatError(f"{at}: shard is not an object of shape and start")
    shape, start = value["shape"], value["start"]
    if not isinstance(shape, list) or not isinstance(start, list) or not len(shape) == len(start) == len(extents):
        raise FormatError(f"{at}: shape and start of the shard must have {len(extents)} entries, as the block has")
    if not _naturals(shape) or not _naturals(start):
        raise FormatError(f"{at}: shape or start of the shard is not made of natural numbers")
    if any(first + extent > whole for first, extent, whole in zip(start, extents, shape, strict=True)):
        raise FormatError(f"{at}: the block ends outside of the tensor of shape {shape}")
    _bytes_of(dtype, shape, at)
    return Shard(tuple(shape), tuple(start))


def parse_table(value: Any, where: str) -> tuple[TensorSpec, ...]:
    """Validate a whole table: bounded, names unique, no overlap."""
    if not isinstance(value, list) or len(value) > MAX_TENSORS:
        raise FormatError(f"{where}: the tensor table is not a list of at most {MAX_TENSORS} entries")
    specs = tuple(parse_spec(entry, where) for entry in value)
    if len({spec.name for spec in specs}) != len(specs):
        raise FormatError(f"{where}: a tensor name occurs twice")
    end = 0
    for spec in sorted(specs, key=lambda spec: (spec.offset, spec.bytes)):
        if spec.offset < end:
            raise FormatError(f"{where}: tensor {spec.name!r} overlaps another")
        end = spec.offset + spec.bytes
    # Gaps are no more than padding, so a table cannot claim more memory than its tensors need.
    if end > sum(align(spec.bytes) for spec in specs):
        raise FormatError(f"{where}: the tensors leave gaps in the payload")
    return specs


def parse_meta(data: bytes, where: str) -> Meta:
    """Validate the meta JSON of a slot. Raises FormatError."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: not JSON ({error})") from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise FormatError(f"{where}: not meta of format {FORMAT}: trainer and sidecar have different releases")
    trees, replicated = value.get("trees"), value.get("replicated")
    if not isinstance(trees, dict) or not isinstance(replicated, bool):
        raise FormatError(f"{where}: trees or replicated is malformed")
    return Meta(replicated, trees, parse_table(value.get("tensors"), where))
