"""What a tensor is: by its name, and a master by its content."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sternpost_checkpoint.adaptive.kinds import Kind, Role, roles_of, rounded, sample_positions
from sternpost_checkpoint.format.table import Shard, TensorSpec

RNG = np.random.default_rng(1)


def spec(name: str, dtype: str, elements: int = 1000, *, shard: Shard | None = None) -> TensorSpec:
    size = elements * (2 if dtype in ("bfloat16", "float16") else 4)
    role = name.partition("/")[0]
    return TensorSpec(name, role, dtype, (elements,), 0, size, replicated=False, stored=True, shard=shard)


def roles(tensors: dict[str, tuple[str, npt.NDArray[np.generic]]]) -> dict[str, Role]:
    specs = [spec(name, dtype, len(values)) for name, (dtype, values) in tensors.items()]
    samples = {
        number: np.ascontiguousarray(values[sample_positions(len(values))]).view(np.uint8)
        for number, (_, values) in enumerate(tensors.values())
        if len(values)
    }
    found = roles_of(specs, range(len(specs)), samples)
    return {specs[number].name: role for number, role in found.items()}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_master_is_found_by_its_content(dtype: str) -> None:
    masters = [RNG.standard_normal(1000).astype(np.float32) for _ in range(3)]
    found = roles(
        {
            **{f"model/{number}": (dtype, rounded(master, dtype)) for number, master in enumerate(masters)},
            **{
                f"optimizer/{number}/whatever": ("float32", master)
                for number, master in reversed(list(enumerate(masters)))
            },
            "optimizer/other": ("float32", RNG.standard_normal(1000).astype(np.float32)),
        }
    )
    names = [f"model/{number}" for number in range(3)]
    for number in range(3):
        assert found[f"model/{number}"] == Role(Kind.WEIGHT)
        assert found[f"optimizer/{number}/whatever"] == Role(Kind.MASTER, companion=names.index(f"model/{number}"))
    assert found["optimizer/other"] == Role(Kind.OTHER)


def test_zeros_are_nobodys_master() -> None:
    zeros = np.zeros(100, dtype=np.float32)
    found = roles({"model/bias": ("bfloat16", rounded(zeros, "bfloat16")), "optimizer/x": ("float32", zeros)})
    assert found["optimizer/x"].kind is Kind.OTHER


def test_moments_are_found_by_name_and_in_pairs() -> None:
    values = RNG.standard_normal(50).astype(np.float32)
    found = roles(
        {
            "optimizer/state/0/exp_avg": ("float32", values),
            "optimizer/state/0/exp_avg_sq": ("float32", values),
            "optimizer/state/1/exp_avg": ("float32", values),
            "optimizer/state/2/exp_avg": ("float32", values),
            "optimizer/state/2/exp_avg_sq": ("float32", values[:20]),
            "optimizer/state/0/max_exp_avg_sq": ("float32", values),
            "optimizer/state/0/momentum_buffer": ("float32", values),
            "extra/exp_avg": ("float32", values),
            "model/exp_avg": ("float32", values),
        }
    )
    assert found["optimizer/state/0/exp_avg"] == Role(Kind.FIRST_MOMENT, partner=1)
    assert found["optimizer/state/0/exp_avg_sq"] == Role(Kind.SECOND_MOMENT, partner=0)
    for alone in ("1/exp_avg", "2/exp_avg"):
        assert found[f"optimizer/state/{alone}"] == Role(Kind.FIRST_MOMENT)
    for other in ("optimizer/state/0/max_exp_avg_sq", "optimizer/state/0/momentum_buffer", "extra/exp_avg"):
        assert found[other].kind is Kind.OTHER
    assert found["model/exp_avg"].kind is Kind.WEIGHT


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=50))
def test_rounding_is_to_nearest_even(values: list[float]) -> None:
    exact = np.array(values, dtype=np.float32)
    bits = rounded(exact, "bfloat16")
    back = (bits.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.abs(back.astype(np.float64) - exact)
        for step in (-1, 1):
            other = ((bits.astype(np.int64) + step).clip(0, 0xFFFF).astype(np.uint32) << 16).view(np.float32)
            finite = np.isfinite(other) & np.isfinite(back)
            assert (error[finite] <= np.abs(other.astype(np.float64) - exact)[finite]).all()
