"""Machine instructions that numba has no name for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from sternpost_checkpoint.codec.kernels.arrays import Array


def _trailing_zeros(_context: Any, word: Any) -> Any:
    """Index of the lowest set bit; the number of bits for 0."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return word(word), generate


def _population(_context: Any, word: Any) -> Any:
    """How many bits are set."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return word(word), generate


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), ir.IntType(64).as_pointer())


def _load_u64(_context: Any, array: Any, offset: Any) -> Any:
    """Eight bytes of a uint8 array from any offset, little endian; the caller has checked the bounds."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_pointer(context, builder, signature.args[0], arguments[0], arguments[1]), align=1)

    return types.uint64(array, offset), generate


def _store_u64(_context: Any, array: Any, offset: Any, word: Any) -> Any:  # noqa: ARG001 # its type is known
    """Write eight bytes to a uint8 array at any offset; the caller has checked the bounds."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        builder.store(arguments[2], pointer, align=1)
        return context.get_dummy_value()

    return types.void(array, offset, types.uint64), generate


Word = np.uint64
trailing_zeros = cast("Callable[[Word], Word]", intrinsic(_trailing_zeros))
population = cast("Callable[[Word], Word]", intrinsic(_population))
load_u64 = cast("Callable[[Array, Word], Word]", intrinsic(_load_u64))
store_u64 = cast("Callable[[Array, Word, Word], None]", intrinsic(_store_u64))
