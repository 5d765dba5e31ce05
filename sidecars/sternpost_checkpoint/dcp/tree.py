"""Between DCP's flat keys and the trees of a generation.

DCP flattens a nested state dict into keys joined by dots, and remembers the path of each. A generation has a tree for each
role. The top-level keys `model` and `optimizer` are roles; all others stand, under their names, in the tree of `extra`.
Needs no torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sternpost_checkpoint.errors import CheckpointError, FormatError
from sternpost_checkpoint.restore.archive import RankPart

OWN_ROLES = ("model", "optimizer")

Path = tuple[str | int, ...]


MAX_DEPTH = 128
"""Deeper than any that is written."""


def nest(values: Mapping[str, Any], paths: Mapping[str, Path]) -> dict[str, Any]:
    """The nested state of flat `values`; a key without a path is at the top. Raises CheckpointError."""
    root: dict[str, Any] = {}
    for key, value in values.items():
        _put(root, paths.get(key) or (key,), value, key)
    settled: dict[str, Any] = _settled(root)
    return settled


class _Numbered(dict[int, Any]):
    """A list in the making."""


def _put(root: dict[Any, Any], path: Path, value: Any, key: str) -> None:
    place: Any = root
    for step, following in itertools.pairwise(path):
        if not isinstance(place, dict):
            raise CheckpointError(f"the keys of the state cross: {key!r} lies inside of another value")
        place = place.setdefault(step, _Numbered() if isinstance(following, int) else {})
    if not isinstance(place, dict) or path[-1] in place:
        raise CheckpointError(f"the keys of the state cross: {key!r} is there twice")
    place[path[-1]] = value


def _settled(value: Any) -> Any:
    if isinstance(value, _Numbered):
        # What other ranks hold of a list is not here; None keeps the places.
        return [_settled(value.get(number)) for number in range(max(value) + 1)]
    if type(value) is dict:
        return {key: _settled(item) for key, item in value.items()}
    return value


def by_role(nested: Mapping[str, Any]) -> dict[str, Any]:
    """The value of each role's tree."""
    roles: dict[str, Any] = {role: nested[role] for role in OWN_ROLES if role in nested}
    rest = {key: value for key, value in nested.items() if key not in OWN_ROLES}
    return {**roles, "extra": rest} if rest else roles


@dataclass(frozen=True)
class Node:
    """What DCP calls a value: a tensor, or whatever it does not look into."""

    path: Path
    encoded: Any
    """As FORMAT.md describes nodes."""

    @property
    def key(self) -> str:
        """As DCP names it."""
        return ".".join(map(str, self.path))

    @property
    def tensor(self) -> int | None:
        """The tensor that it is, by its place in the table; None for a plain value."""
        return self.encoded["index"] if _is_tensor(self.encoded) else None


def flatten_part(part: RankPart) -> dict[str, Node]:
    """The values of one rank by their keys; its random states are left out. Raises FormatError."""
    found: dict[str, Node] = {}
    try:
        for role, tree in part.index.trees.items():
            if role == "random":
                continue
            for node in _walk(tree, () if role == "extra" else (role,), 0):
                if node.key in found:
                    raise FormatError(f"{part.shard}: two values would have the key {node.key!r}")
                if node.tensor is not None and not 0 <= node.tensor < len(part.specs):
                    raise FormatError(f"{part.shard}: a tree names tensor {node.tensor}, which is not in the table")
                found[node.key] = node
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{part.shard}: a tree is malformed: {error!r}") from error
    return found


def tensors_in(encoded: Any) -> Iterator[int]:
    """The tensors that a plain value holds, by their places in the table."""
    waiting = [encoded]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            if type(value.get("index")) is int and value.get("$") in ("tensor", "ndarray", "scalar"):
                yield value["index"]
            else:
                waiting += value.values()


def _walk(value: Any, path: Path, depth: int) -> Iterator[Node]:
    """As DCP goes through a state dict: into mappings, and into lists that hold tensors or mappings."""
    if depth > MAX_DEPTH:
        raise ValueError("it is nested too deep")
    items = _items(value)
    if items is not None:
        for key, item in items:
            yield from _walk(item, (*path, key), depth + 1)
    elif isinstance(value, list) and not _is_terminal(value, 0):
        for number, item in enumerate(value):
            yield from _walk(item, (*path, number), depth + 1)
    elif path:
        yield Node(path, value)


def _items(value: Any) -> list[tuple[str, Any]] | None:
    """The entries of a mapping; None for everything else."""
    if not isinstance(value, dict):
        return None
    if "$" not in value:
        return list(value.items())
    if value["$"] == "dict":
        return [(str(_plain_key(key)), item) for key, item in value["items"]]
    return None


def _plain_key(key: Any) -> Any:
    if isinstance(key, dict) and key.get("$") == "tuple":
        return tuple(_plain_key(item) for item in key["items"])
    return key


def _is_tensor(value: Any) -> bool:
    return isinstance(value, dict) and value.get("$") == "tensor" and type(value.get("index")) is int


def _is_terminal(value: list[Any], depth: int) -> bool:
    if depth > MAX_DEPTH:
        raise ValueError("it is nested too deep")
    return not any(
        _is_tensor(item) or _items(item) is not None or (isinstance(item, list) and not _is_terminal(item, depth + 1))
        for item in value
    )
