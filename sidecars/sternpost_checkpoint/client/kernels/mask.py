"""On the GPU: which elements changed since the base, and their values.

The mask is that of the codec `mask` (bit i % 8, lowest first, of byte i / 8). With TRITON_INTERPRET=1 in the environment
before the import, the kernel runs on the CPU, for tests.
"""

from __future__ import annotations

from typing import Any

import torch
import triton  # type: ignore[import-untyped,import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-untyped,import-not-found,unused-ignore]
from torch import Tensor

BLOCK_BYTES = 1024
"""Of the mask, for each program."""


def _mask_kernel(current: Any, base: Any, mask: Any, elements: Any, BLOCK: tl.constexpr) -> None:  # noqa: N803 # a constexpr
    byte = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    bits = tl.zeros((BLOCK,), dtype=tl.int32)
    for bit in tl.static_range(8):
        at = byte * 8 + bit
        here = tl.load(current + at, mask=at < elements, other=0)
        there = tl.load(base + at, mask=at < elements, other=0)
        bits |= (here != there).to(tl.int32) << bit
    tl.store(mask + byte, bits.to(tl.uint8), mask=byte * 8 < elements)


_compiled = triton.jit(_mask_kernel)

INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def mask_and_values(current: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
    """Compare the bits of two dense tensors of one dtype and shape, on one device.

    Returns the mask (uint8, an eighth of the elements, rounded up) and the changed elements, in order, of the tensors'
    dtype. NaN with equal bits are equal, and -0 is not 0. Raises ValueError for other tensors.
    """
    if current.dtype != base.dtype or current.shape != base.shape or current.device != base.device:
        raise ValueError(f"cannot compare {current.dtype} {tuple(current.shape)} with {base.dtype} {tuple(base.shape)}")
    if current.element_size() not in INTEGERS or not (current.is_contiguous() and base.is_contiguous()):
        raise ValueError("only dense tensors with elements of 1, 2, 4 or 8 bytes are compared")
    integer = INTEGERS[current.element_size()]
    here, there = current.view(-1).view(integer), base.view(-1).view(integer)
    mask = torch.empty((here.numel() + 7) // 8, dtype=torch.uint8, device=current.device)
    if here.numel():
        _compiled[(triton.cdiv(len(mask), BLOCK_BYTES),)](here, there, mask, here.numel(), BLOCK=BLOCK_BYTES)
    return mask, here[here != there].view(current.dtype)
