"""Nested plain values as JSON, tensors taken out. What cannot be written exactly is refused, with its path.

| value | JSON |
|---|---|
| None, bool, str, int, finite float | themselves |
| other floats | {"$": "float", "bits": 16 hex digits} |
| bytes | {"$": "bytes", "base64": …} |
| list | array |
| tuple | {"$": "tuple", "items": […]} |
| dict whose keys are all str, none beginning with "$" | object |
| any other dict | {"$": "dict", "items": [[key, value], …]} |
| tensor | {"$": "tensor", "index": n} |
| numpy array | {"$": "ndarray", "index": n} |
| numpy scalar | {"$": "scalar", "index": n} |
| torch.dtype | {"$": "dtype", "name": …} |
"""

from __future__ import annotations

import base64
import math
import struct
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from sternpost_checkpoint.errors import CheckpointError, FormatError

MAX_DEPTH = 64
_KEY_TYPES = (str, int, float, bool, tuple, bytes, type(None))
DICTIONARIES = (dict, OrderedDict, defaultdict, Counter)

Take = Callable[[torch.Tensor, str], int]
"""Takes a tensor out of the tree, by its path; returns its index."""


def encode(value: Any, path: str, take: Take, depth: int = 0) -> Any:  # noqa: PLR0911 # one return for each kind
    """Return the JSON of `value`. Raises CheckpointError naming the path of what is not a plain value or tensor."""
    if depth > MAX_DEPTH:
        raise CheckpointError(f"{path} is nested deeper than {MAX_DEPTH} levels, or contains itself")
    kind = type(value)
    if value is None or kind in (bool, str, int):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"$": "float", "bits": struct.pack(">d", value).hex()}
    if isinstance(value, torch.Tensor):
        return {"$": "tensor", "index": take(value, path)}
    if kind in (list, tuple, torch.Size):
        items = [encode(item, f"{path}/{number}", take, depth + 1) for number, item in enumerate(value)]
        return items if kind is list else {"$": "tuple", "items": items}
    if kind in DICTIONARIES:
        return _encode_dict(value, path, take, depth)
    if kind is bytes:
        return {"$": "bytes", "base64": base64.b64encode(value).decode()}
    if isinstance(value, np.generic):
        return {"$": "scalar", "index": take(from_numpy(np.asarray(value), path), path)}
    if isinstance(value, np.ndarray):
        return {"$": "ndarray", "index": take(from_numpy(value, path), path)}
    if isinstance(value, torch.dtype):
        return {"$": "dtype", "name": str(value).removeprefix("torch.")}
    # Subclasses such as an IntEnum would come back as something else than they were.
    raise CheckpointError(
        f"{path} is a {kind.__module__}.{kind.__qualname__}, which a checkpoint cannot hold: give plain values, tensors,"
        " or an object with state_dict and load_state_dict"
    )


def _encode_dict(value: dict[Any, Any], path: str, take: Take, depth: int) -> Any:
    if all(type(key) is str and not key.startswith("$") for key in value):
        return {key: encode(item, f"{path}/{key}", take, depth + 1) for key, item in value.items()}
    items = []
    for key, item in value.items():
        if type(key) not in _KEY_TYPES:
            raise CheckpointError(f"{path} has a key of type {type(key).__qualname__}: use str, int or a tuple of them")
        items.append(
            [encode(key, f"{path}/<key>", _no_tensor, depth + 1), encode(item, f"{path}/{key}", take, depth + 1)]
        )
    return {"$": "dict", "items": items}


def _no_tensor(tensor: torch.Tensor, path: str) -> int:  # noqa: ARG001 # has the signature of Take
    raise CheckpointError(f"{path} is a tensor")


def from_numpy(array: np.ndarray[Any, Any], path: str) -> torch.Tensor:
    """A tensor with a copy of `array`, in C order and this machine's byte order. Raises CheckpointError naming `path`."""
    if array.dtype.hasobject or array.dtype.kind not in "biufc":
        raise CheckpointError(f"{path} is a numpy array of {array.dtype}: only numbers and booleans can be held")
    try:
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C", copy=True))
    except TypeError as error:
        raise CheckpointError(f"{path} is a numpy array of {array.dtype}, which torch cannot hold") from error


def decode(value: Any, tensors: Sequence[torch.Tensor | None], depth: int = 0) -> Any:
    """Undo `encode`. Raises FormatError for what it never writes."""
    if depth > 2 * MAX_DEPTH:
        raise FormatError("a tree is nested too deep")
    if isinstance(value, list):
        return [decode(item, tensors, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    if "$" not in value:
        return {key: decode(item, tensors, depth + 1) for key, item in value.items()}
    try:
        return _decode_tagged(value, tensors, depth)
    except (KeyError, TypeError, ValueError, IndexError, struct.error) as error:
        raise FormatError(f"a tree holds a malformed {value.get('$')!r}: {error}") from error


def _decode_tagged(  # noqa: PLR0911 # one return for each tag
    value: dict[str, Any], tensors: Sequence[torch.Tensor | None], depth: int
) -> Any:
    match value["$"]:
        case "float":
            return struct.unpack(">d", bytes.fromhex(value["bits"]))[0]
        case "bytes":
            return base64.b64decode(value["base64"], validate=True)
        case "tuple":
            return tuple(decode(item, tensors, depth + 1) for item in value["items"])
        case "dict":
            return {decode(key, (), depth + 1): decode(item, tensors, depth + 1) for key, item in value["items"]}
        case "tensor":
            return _tensor(value["index"], tensors)
        case "ndarray":
            return _tensor(value["index"], tensors).numpy()
        case "scalar":
            return _tensor(value["index"], tensors).numpy()[()]
        case "dtype":
            dtype = getattr(torch, value["name"])
            if not isinstance(dtype, torch.dtype):
                raise FormatError(f"{value['name']!r} is no dtype")
            return dtype
        case unknown:
            raise FormatError(f"a tree holds the unknown tag {unknown!r}")


def _tensor(index: Any, tensors: Sequence[torch.Tensor | None]) -> torch.Tensor:
    if type(index) is not int or not 0 <= index < len(tensors):
        raise FormatError(f"a tree names tensor {index!r}, the table has {len(tensors)}")
    tensor = tensors[index]
    if tensor is None:
        raise FormatError(f"a tree names tensor {index}, which was left out")
    return tensor
