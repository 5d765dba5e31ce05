from __future__ import annotations

import json
import math
import struct
from collections import OrderedDict
from enum import IntEnum
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_checkpoint.client.layout import assign
from sternpost_checkpoint.client.snapshot import take_snapshot
from sternpost_checkpoint.client.tree import decode, encode
from sternpost_checkpoint.errors import CheckpointError, FormatError

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int16,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.float8_e4m3fn,
]


def round_trip(value: Any) -> Any:
    tensors: list[torch.Tensor] = []

    def take(tensor: torch.Tensor, path: str) -> int:
        tensors.append(tensor.clone())
        return len(tensors) - 1

    return decode(json.loads(json.dumps(encode(value, "extra", take), allow_nan=False)), tensors)


def same(left: Any, right: Any) -> bool:  # noqa: PLR0911 # one return for each kind
    """Equal in type and bit for bit."""
    if type(left) is not type(right):
        return False
    if isinstance(left, torch.Tensor):
        if (left.dtype, left.shape) != (right.dtype, right.shape):
            return False
        return torch.equal(left.reshape(-1).view(torch.uint8), right.reshape(-1).view(torch.uint8))
    if isinstance(left, np.ndarray | np.generic):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    if isinstance(left, float):
        return struct.pack("d", left) == struct.pack("d", right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(
            type(a) is type(b) and same(left[a], right[b]) for a, b in zip(left, right, strict=True)
        )
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    return bool(left == right)


@st.composite
def tensor_values(draw: st.DrawFn) -> torch.Tensor:
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    data = torch.randint(
        0, 2 if dtype is torch.bool else 100, shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))
    )
    return data.to(torch.float32).to(dtype) if dtype.is_floating_point else data.to(dtype)


plain = st.none() | st.booleans() | st.integers() | st.floats(width=64) | st.text(max_size=8) | st.binary(max_size=8)
keys = (
    st.text(max_size=6) | st.integers() | st.tuples(st.integers(), st.text(max_size=3)) | st.just("$") | st.booleans()
)
trees = st.recursive(
    plain | tensor_values(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple) | st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=150)
@given(trees)
def test_any_tree_comes_back_bit_for_bit(tree: Any) -> None:
    assert same(round_trip(tree), tree)


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        -math.inf,
        -0.0,
        struct.unpack("d", b"\x01\0\0\0\0\0\xf8\x7f")[0],
        2**200,
        {"state": {0: {"step": 1}, 1: {}}, "param_groups": [{"betas": (0.9, 0.999), "params": [0, 1]}]},
        {1: "int", "1": "str"},
        np.arange(6, dtype=np.uint32).reshape(2, 3),
        np.float32(1.5),
        np.bool_(True),
        torch.bfloat16,
    ],
)
def test_special_values(value: Any) -> None:
    assert same(round_trip(value), value)


def test_other_dictionaries_become_plain_ones() -> None:
    assert round_trip(OrderedDict(b=1, a=2)) == {"b": 1, "a": 2}


class Kind(IntEnum):
    ONE = 1


@pytest.mark.parametrize("value", [object(), {1, 2}, Kind.ONE, lambda: None, np.array(["x"]), 1j])
def test_what_is_not_plain_is_refused_with_its_path(value: Any) -> None:
    with pytest.raises(CheckpointError, match="extra/inner/0"):
        round_trip({"inner": [value]})


def test_a_tree_that_contains_itself() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(CheckpointError, match="contains itself"):
        round_trip(loop)


@pytest.mark.parametrize(
    "value",
    [
        {"$": "pickle"},
        {"$": "tensor", "index": 0},
        {"$": "tensor", "index": -1},
        {"$": "tensor"},
        {"$": "float", "bits": "zz"},
        {"$": "dtype", "name": "load"},
        {"$": "dtype", "name": "__builtins__"},
        {"$": "dict", "items": [[[], 1]]},
        {"$": []},
    ],
)
def test_malformed_trees_are_refused(value: Any) -> None:
    with pytest.raises(FormatError):
        decode(value, [])


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 1000), max_size=40), st.integers(1, 8))
def test_shares_are_complete_and_balanced(sizes: list[int], world_size: int) -> None:
    owners = assign([(f"t{number}", size) for number, size in enumerate(sizes)], world_size)
    loads = [
        sum(size for size, owner in zip(sizes, owners, strict=True) if owner == rank) for rank in range(world_size)
    ]
    assert len(owners) == len(sizes)
    assert max(loads) - min(loads) <= max(sizes, default=0)


def test_every_replicated_tensor_is_stored_by_exactly_one_rank() -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(5)))
    states = {"model": model.state_dict(), "random": {"torch": torch.get_rng_state()}}
    metas = [take_snapshot(states, replicated=True, rank=rank, world_size=3) for rank in range(3)]
    for entries in zip(*(meta.layout.specs for meta in metas), strict=True):
        expected = 1 if entries[0].role == "model" else 3
        assert sum(entry.stored for entry in entries) == expected
    assert take_snapshot(states, replicated=False, rank=2, world_size=3).layout.specs[0].stored


def test_tied_weights_are_one_tensor_and_strided_ones_are_dense() -> None:
    weight = torch.arange(12.0).reshape(3, 4)
    states = {
        "model": {"a": weight, "b": weight, "turned": weight.t(), "empty": torch.empty(0), "empty2": torch.empty(0)}
    }
    snapshot = take_snapshot(states, replicated=True, rank=0, world_size=1)
    assert [spec.name for spec in snapshot.layout.specs] == ["model/a", "model/turned", "model/empty", "model/empty2"]
    assert snapshot.layout.specs[1].shape == (4, 3)
    assert all(spec.offset % 64 == 0 for spec in snapshot.layout.specs)


def test_paths_that_look_alike_get_different_names() -> None:
    states = {"extra": {1: torch.zeros(1), "1": torch.ones(1)}}
    names = [spec.name for spec in take_snapshot(states, replicated=True, rank=0, world_size=1).layout.specs]
    assert names == ["extra/1", "extra/1#2"]


@pytest.mark.parametrize("tensor", [torch.eye(3).to_sparse(), torch.empty(2, device="meta")], ids=["sparse", "meta"])
def test_tensors_that_cannot_be_held(tensor: torch.Tensor) -> None:
    with pytest.raises(CheckpointError, match="extra/t is a"):
        take_snapshot({"extra": {"t": tensor}}, replicated=True, rank=0, world_size=1)
