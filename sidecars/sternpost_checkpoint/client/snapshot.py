"""From objects to a tree and a list of tensors, laid out for a slot; what has not changed is not made again.

Making a layout costs microseconds for each tensor: paths, JSON, the table. So it is kept, and with every save each thing that
it depends on is compared: the form of the tree and its plain values (`Scan`), and of each tensor its kind, dtype, shape,
whether it still shares memory with the one it was tied to, and for a DTensor its mesh and placements. A plain value
that changed costs the JSON of the part of the tree that it stands in. Anything else that changed costs a new layout.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any

import torch

from sternpost_checkpoint.client.layout import Layout, check_tensor, lay_out
from sternpost_checkpoint.client.scan import Scan
from sternpost_checkpoint.client.sharded import distributed_kind, facts_of, local_part
from sternpost_checkpoint.client.tree import encode
from sternpost_checkpoint.format.names import FORMAT

ROLES = ("model", "optimizer", "extra", "random")
"""In the order of the table: the random states stand last."""
MAX_PARTS = 64
MAX_PART_DEPTH = 3

_DTYPE = attrgetter("dtype")

Path = tuple[str, ...]


@dataclass(frozen=True)
class Snapshot:
    """A state, not copied yet."""

    layout: Layout
    meta: bytes
    """The meta JSON."""
    tensors: list[torch.Tensor]
    """The source of each table entry: this process' own part, with its real memory; may require a gradient."""
    whole: list[torch.Tensor]
    """The same, but DTensors where the state has them."""
    fresh: frozenset[int]
    """Entries whose tensor is made anew for each snapshot."""


@dataclass
class _Part:
    """A piece of the tree with its own JSON."""

    path: Path
    scan: Scan
    indices: list[int]
    """The table entry of each of its tensors."""
    json: bytes


class _Facts:
    """What the layout takes from tensors."""

    def __init__(self, tensors: list[torch.Tensor]) -> None:
        self.tensors = tensors
        self.kinds = list(map(type, tensors))
        sharded = distributed_kind()
        kinds = {kind for kind in set(self.kinds) if issubclass(kind, sharded)} if sharded else set()
        distributed = [number for number, kind in enumerate(self.kinds) if kind in kinds] if kinds else []
        self.blocks = [facts_of(tensors[number]) for number in distributed]
        self.locals = tensors
        if distributed:
            self.locals = list(tensors)
            for number in distributed:
                self.locals[number] = local_part(tensors[number])
        self.dtypes = list(map(_DTYPE, self.locals))
        self.shapes = list(map(torch.Tensor.size, self.locals))

    def same_as(self, other: _Facts) -> bool:
        return (
            self.kinds == other.kinds
            and self.dtypes == other.dtypes
            and self.shapes == other.shapes
            and self.blocks == other.blocks
        )


class Snapshots:
    """Takes snapshots of one training."""

    def __init__(
        self,
        *,
        replicated: bool,
        rank: int,
        world_size: int,
        families: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._families = families
        self._replicated = replicated
        self._rank = rank
        self._world_size = world_size
        self._parts: list[_Part] = []
        self._facts: _Facts | None = None
        self._layout = Layout(())
        self._head = b""
        self.layouts = 0
        """How often a layout had to be made."""

    def take(self, states: dict[str, Any]) -> Snapshot:
        """Lay a state out. `states` has the roles as keys. Raises CheckpointError for what a checkpoint cannot hold."""
        pieces = list(_split(states))
        scans = [Scan(value) for _, value in pieces]
        facts = _Facts(list(chain.from_iterable(scan.tensors for scan in scans)))
        if not self._fits(pieces, scans, facts):
            self._build(pieces, scans, facts)
        else:
            self._refresh(pieces, scans)
        tensors, whole = facts.locals, facts.tensors
        if self._ties:
            tensors, whole = ([taken[position] for position in self._first] for taken in (tensors, whole))
        return Snapshot(self._layout, self._meta(), tensors, whole, self._fresh)

    def _fits(self, pieces: list[tuple[Path, Any]], scans: list[Scan], facts: _Facts) -> bool:
        return (
            self._facts is not None
            and [path for path, _ in pieces] == [part.path for part in self._parts]
            and all(scan.has_form_of(part.scan) for scan, part in zip(scans, self._parts, strict=True))
            and facts.same_as(self._facts)
            and all(_key(facts.locals[one]) == _key(facts.locals[other]) for one, other in self._ties)
        )

    def _refresh(self, pieces: list[tuple[Path, Any]], scans: list[Scan]) -> None:
        """Make the JSON of those parts again whose plain values changed."""
        for (path, value), scan, part in zip(pieces, scans, self._parts, strict=True):
            if not scan.has_values_of(part.scan):
                indices = iter(part.indices)
                part.json = _dump(encode(value, "/".join(path), lambda *_, indices=indices: next(indices)))
                part.scan = scan

    def _build(self, pieces: list[tuple[Path, Any]], scans: list[Scan], facts: _Facts) -> None:
        self._facts = None  # of a half-made layout nothing may be concluded
        parts: list[_Part] = []
        names: list[str] = []
        first: list[int] = []
        ties: list[tuple[int, int]] = []
        seen: dict[tuple[Any, ...], int] = {}
        position = 0
        for (path, value), scan in zip(pieces, scans, strict=True):
            indices: list[int] = []

            def take(_: torch.Tensor, name: str, role: str = path[0], indices: list[int] = indices) -> int:
                nonlocal position
                # The scan's, which are kept: an array's copy that `encode` made is gone, and its address used again.
                tensor = facts.locals[position]
                check_tensor(facts.tensors[position], name)
                key = (role, *_key(tensor))
                # Tied weights are one tensor under two names. Empty ones have no address to tell them apart.
                index = seen.get(key) if tensor.numel() else None
                if index is None:
                    index = seen[key] = len(names)
                    names.append(name)
                    first.append(position)
                else:
                    ties.append((first[index], position))
                position += 1
                indices.append(index)
                return index

            tree = encode(value, "/".join(path), take)
            parts.append(_Part(path, scan, indices, _dump(tree)))
        tensors = list(chain.from_iterable(scan.tensors for scan in scans))
        self._layout = lay_out(
            [tensors[number] for number in first],
            names,
            families=self._families(),
            replicated=self._replicated,
            rank=self._rank,
            world_size=self._world_size,
        )
        self._parts, self._first, self._ties = parts, first, ties
        self._fresh = _fresh(scans, pieces, first)
        replicated = b"true" if self._replicated else b"false"
        self._head = b'{"format":%d,"replicated":%b,"tensors":%b,"trees":' % (FORMAT, replicated, self._layout.table)
        self._facts = facts
        self.layouts += 1

    def _meta(self) -> bytes:
        return b"".join((self._head, _join([(part.path, part.json) for part in self._parts]), b"}"))


def take_snapshot(states: dict[str, Any], *, replicated: bool, rank: int, world_size: int) -> Snapshot:
    """Lay a state out once. Raises CheckpointError for what a checkpoint cannot hold."""
    return Snapshots(replicated=replicated, rank=rank, world_size=world_size).take(states)


def _key(tensor: torch.Tensor) -> tuple[Any, ...]:
    return (tensor.data_ptr(), tensor.dtype, tensor.device, tuple(tensor.shape), tensor.stride())


def _fresh(scans: list[Scan], pieces: list[tuple[Path, Any]], first: list[int]) -> frozenset[int]:
    positions: set[int] = set()
    start = 0
    for (path, _), scan in zip(pieces, scans, strict=True):
        made = range(len(scan.tensors)) if path[0] == "random" else scan.fresh
        positions.update(start + number for number in made)
        start += len(scan.tensors)
    return frozenset(index for index, position in enumerate(first) if position in positions)


def _split(states: dict[str, Any]) -> Iterator[tuple[Path, Any]]:
    """Cut the tree into parts whose JSON is kept apart: a learning rate must not cost the JSON of all the moments."""
    for role in ROLES:
        if role in states:
            yield from _split_value((role,), states[role])


def _split_value(path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    if (
        len(path) <= MAX_PART_DEPTH
        and type(value) is dict
        and 0 < len(value) <= MAX_PARTS
        and all(type(key) is str and not key.startswith("$") for key in value)
        and any(isinstance(item, dict | list) for item in value.values())
    ):
        for key, item in value.items():
            yield from _split_value((*path, key), item)
    else:
        yield path, value


def _join(parts: list[tuple[Path, bytes]], depth: int = 0) -> bytes:
    """Put the parts' JSON together again: all begin with the same `depth` keys."""
    if len(parts) == 1 and len(parts[0][0]) == depth:
        return parts[0][1]
    groups: dict[str, list[tuple[Path, bytes]]] = {}
    for part in parts:
        groups.setdefault(part[0][depth], []).append(part)
    return b"{%b}" % b",".join(
        b"%b:%b" % (json.dumps(key).encode(), _join(group, depth + 1)) for key, group in groups.items()
    )


def _dump(tree: Any) -> bytes:
    return json.dumps(tree, separators=(",", ":"), allow_nan=False).encode()
