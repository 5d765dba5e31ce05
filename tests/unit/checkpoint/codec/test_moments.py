from __future__ import annotations

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_checkpoint.codec.base import NotEncodable, by_name
from sternpost_checkpoint.codec.moments import encode_moments

EPSILON = 1e-8
Array = np.ndarray[tuple[int], np.dtype[np.float32]]


def moments(size: int, seed: int = 0, spread: float = 2.0) -> tuple[Array, Array]:
    """As AdamW leaves them: rows of very different size, a few that never saw a gradient."""
    generator = np.random.default_rng(seed)
    scale = np.exp(generator.standard_normal(size // 100 + 1) * spread).repeat(100)[:size] * 1e-4
    m = (generator.standard_normal(size) * scale * 0.3).astype(np.float32)
    v = (generator.chisquare(3, size) / 3 * scale**2).astype(np.float32)
    dead = generator.random(size) < 0.01
    m[dead], v[dead] = 0, 0
    return m, v


def view(values: Array) -> memoryview:
    return memoryview(values).cast("B") if values.size else memoryview(b"")


def update(m: Array, v: Array) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return m.astype(np.float64) / (np.sqrt(v.astype(np.float64)) + EPSILON)


def decoded(codec: str, stored: list[bytes] | tuple[bytes, ...], size: int) -> Array:
    target = bytearray(4 * size)
    by_name(codec).decode(memoryview(b"".join(stored)), memoryview(target), "float32")
    return np.frombuffer(bytes(target), np.float32)


@pytest.mark.parametrize(
    ("codec", "bound", "bits"), [("clusters-8", 0.02, 8.3), ("clusters-8", 0.05, 7.0), ("clusters-4", 0.5, 4.8)]
)
@pytest.mark.parametrize("size", [5000, 2**16 * 2 + 13])
def test_the_error_is_what_is_stated(codec: str, bound: float, bits: float, size: int) -> None:
    m, v = moments(size)
    found = encode_moments(view(m), view(v), codec=codec, bound=bound)
    m_after, v_after = (decoded(codec, list(stored), size) for stored in (found.first, found.second))
    assert found.first_raw_hash == xxhash.xxh3_128_hexdigest(m_after.tobytes())
    assert found.second_raw_hash == xxhash.xxh3_128_hexdigest(v_after.tobytes())
    before, after = update(m, v), update(m_after, v_after)
    error = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert error == pytest.approx(found.update_error, rel=1e-6)
    assert error <= bound
    assert found.largest_update == pytest.approx(np.abs(after).max(), rel=1e-6)
    np.testing.assert_array_equal(m_after == 0, m == 0)
    np.testing.assert_array_equal(v_after == 0, v == 0)
    np.testing.assert_array_equal(np.sign(m_after), np.sign(m))
    if size > 10_000:
        assert sum(map(len, [*found.first, *found.second])) * 8 / (2 * size) < bits


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(0, 2000),
    spread=st.floats(0, 8),
    codec=st.sampled_from(["clusters-8", "clusters-4"]),
)
def test_what_is_not_zero_never_becomes_zero(seed: int, size: int, spread: float, codec: str) -> None:
    m, v = moments(size, seed, spread)
    generator = np.random.default_rng(seed)
    if size:  # down to the smallest subnormals, up to the largest floats
        m[generator.integers(0, size, 3)] = [1e-45, -1e-40, 3e38]
        v[generator.integers(0, size, 3)] = [1e-45, 1e-40, 3e38]
    for values in (m, v):
        stored = [bytes(piece) for piece in by_name(codec).encode(view(values), "float32")]
        after = decoded(codec, stored, size)
        np.testing.assert_array_equal(after == 0, values == 0)
        assert np.isfinite(after).all()


def test_v_does_not_fall_to_zero_where_a_linear_scale_would_let_it() -> None:
    """Updates of up to 2258 came of 8 bits on a linear scale: v was rounded to 0 beside much larger ones."""
    m, v = moments(20_000, spread=4.0)
    found = encode_moments(view(m), view(v), codec="clusters-8", bound=0.02)
    assert found.largest_update < 1.2 * np.abs(update(m, v)).max()


def test_a_bound_that_cannot_hold_is_refused() -> None:
    m, v = moments(20_000)
    for codec, bound in (("clusters-8", 1e-4), ("clusters-4", 0.02)):
        with pytest.raises(NotEncodable, match=f"above {bound}"):
            encode_moments(view(m), view(v), codec=codec, bound=bound)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_what_is_no_moment_is_refused(value: float) -> None:
    m, v = moments(1000)
    v[500] = value
    with pytest.raises(NotEncodable, match=r"infinite values or NaN|is negative"):
        encode_moments(view(m), view(v), codec="clusters-8", bound=0.02)
    with pytest.raises(NotEncodable, match="one size"):
        encode_moments(view(m), view(v[:10]), codec="clusters-8", bound=0.02)
    with pytest.raises(NotEncodable, match="not a codec for moments"):
        encode_moments(view(m), view(m), codec="raw", bound=0.02)


def test_moments_that_are_all_zero_have_no_error() -> None:
    zero = np.zeros(1000, np.float32)
    found = encode_moments(view(zero), view(zero), codec="clusters-4", bound=0.02)
    assert found.update_error == 0
    assert not decoded("clusters-4", list(found.second), 1000).any()


@pytest.mark.parametrize("codec", ["clusters-8", "clusters-4"])
def test_only_finite_float32_is_clustered(codec: str) -> None:
    with pytest.raises(NotEncodable, match="not for bfloat16"):
        by_name(codec).encode(memoryview(bytes(8)), "bfloat16")
    with pytest.raises(NotEncodable, match="infinite"):
        by_name(codec).encode(view(np.array([1, np.nan], np.float32)), "float32")
