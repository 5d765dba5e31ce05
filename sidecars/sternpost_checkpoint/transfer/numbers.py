"""Bytes of a tensor as numbers that numpy can reckon with; bf16 and fp8, which it does not know, are widened."""

from __future__ import annotations

from typing import Any

import numpy as np

from sternpost_checkpoint.errors import FormatError
from sternpost_checkpoint.format.dtypes import ITEM_BYTES

Array = np.ndarray[Any, np.dtype[Any]]

NATIVE: dict[str, str] = {
    "bool": "?",
    "uint8": "u1",
    "int8": "i1",
    "uint16": "<u2",
    "int16": "<i2",
    "uint32": "<u4",
    "int32": "<i4",
    "uint64": "<u8",
    "int64": "<i8",
    "float16": "<f2",
    "float32": "<f4",
    "float64": "<f8",
    "complex64": "<c8",
    "complex128": "<c16",
}
"""Dtypes that numpy has, and how it writes them."""


def words(data: memoryview, dtype: str) -> Array:
    """The elements as unsigned words, for comparing bits: flat, without a copy."""
    width = ITEM_BYTES[dtype]
    return np.frombuffer(data, dtype=f"<u{min(width, 8)}").reshape(-1, max(width // 8, 1))


def numbers(data: memoryview, dtype: str) -> Array:
    """The elements as numpy numbers, flat: float16 to 64, integers, complex; bf16 and fp8 as float32.

    Raises FormatError for a dtype that is unknown.
    """
    if dtype in NATIVE:
        return np.frombuffer(data, dtype=NATIVE[dtype])
    if dtype == "bfloat16":
        return (np.frombuffer(data, dtype="<u2").astype(np.uint32) << 16).view(np.float32)
    if dtype == "float8_e4m3fn":
        return _E4M3FN[np.frombuffer(data, dtype=np.uint8)]
    if dtype == "float8_e5m2":
        # The upper half of a float16.
        return (np.frombuffer(data, dtype=np.uint8).astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    raise FormatError(f"unknown dtype {dtype!r}")


def _table_e4m3fn() -> Array:
    """All 256 values: sign, four bits of exponent (bias 7), three of mantissa; no infinity, 0x7f and 0xff are NaN."""
    codes = np.arange(256)
    exponent, mantissa = (codes >> 3) & 15, codes & 7
    value = np.where(exponent == 0, mantissa / 8 * 2.0**-6, (1 + mantissa / 8) * 2.0 ** (exponent - 7.0))
    value[(codes & 127) == 127] = np.nan
    return np.where(codes & 128, -value, value).astype(np.float32)


_E4M3FN = _table_e4m3fn()
