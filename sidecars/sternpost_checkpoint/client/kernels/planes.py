"""On the GPU: byte planes, the first bytes of all elements, then the second ones, and so on."""

from __future__ import annotations

from typing import Any

import torch
import triton  # type: ignore[import-untyped,import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-untyped,import-not-found,unused-ignore]
from torch import Tensor

BLOCK = 1024
"""Elements for each program."""


def _planes_kernel(data: Any, planes: Any, elements: Any, WIDTH: tl.constexpr, BLOCK: tl.constexpr) -> None:  # noqa: N803 # constexpr
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    for plane in tl.static_range(WIDTH):
        value = tl.load(data + element * WIDTH + plane, mask=element < elements, other=0)
        tl.store(planes + plane * elements + element, value, mask=element < elements)


_compiled = triton.jit(_planes_kernel)


def byte_planes(tensor: Tensor) -> Tensor:
    """Group the bytes of a dense tensor: uint8 of shape (bytes of an element, elements), on the same device.

    Raises ValueError for a tensor that is not contiguous.
    """
    if not tensor.is_contiguous():
        raise ValueError("only contiguous tensors are grouped")
    elements, width = tensor.numel(), tensor.element_size()
    planes = torch.empty((width, elements), dtype=torch.uint8, device=tensor.device)
    if elements:
        data = tensor.view(-1).view(torch.uint8)
        _compiled[(triton.cdiv(elements, BLOCK),)](data, planes, elements, WIDTH=width, BLOCK=BLOCK)
    return planes
