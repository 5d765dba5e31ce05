"""Take floats apart: the eight bits of the exponent, which compress, and the rest, which is noise."""

from __future__ import annotations

import numpy as np

from sternpost_checkpoint.codec.kernels.arrays import Array
from sternpost_checkpoint.codec.kernels.jit import kernel


@kernel
def split_16(values: Array, exponents: Array, rest: Array) -> None:
    """uint16 `values`: bits 7 to 14 to `exponents`, the sign (bit 7) and bits 0 to 6 to `rest` (uint8)."""
    for i in range(values.size):
        value = np.uint32(values[i])
        exponents[i] = np.uint8(value >> np.uint32(7))
        rest[i] = np.uint8((value >> np.uint32(8)) & np.uint32(0x80) | value & np.uint32(0x7F))


@kernel
def join_16(exponents: Array, rest: Array, values: Array) -> None:
    """Undo `split_16`."""
    for i in range(values.size):
        low = np.uint32(rest[i])
        sign = (low & np.uint32(0x80)) << np.uint32(8)
        values[i] = np.uint16(sign | np.uint32(exponents[i]) << np.uint32(7) | low & np.uint32(0x7F))


@kernel
def split_32(values: Array, exponents: Array, rest: Array, low: Array) -> None:
    """uint32 `values`: bits 23 to 30, sign (bit 7) and bits 16 to 22, and bits 0 to 15 (uint16)."""
    for i in range(values.size):
        value = values[i]
        exponents[i] = np.uint8(value >> np.uint32(23))
        rest[i] = np.uint8((value >> np.uint32(24)) & np.uint32(0x80) | (value >> np.uint32(16)) & np.uint32(0x7F))
        low[i] = np.uint16(value)


@kernel
def join_32(exponents: Array, rest: Array, low: Array, values: Array) -> None:
    """Undo `split_32`."""
    for i in range(values.size):
        upper = np.uint32(rest[i])
        sign = (upper & np.uint32(0x80)) << np.uint32(24)
        values[i] = (
            sign
            | np.uint32(exponents[i]) << np.uint32(23)
            | (upper & np.uint32(0x7F)) << np.uint32(16)
            | np.uint32(low[i])
        )
