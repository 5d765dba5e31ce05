"""Making the state that an optimizer has only after its first step, to learn its form."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def with_state(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """While it lasts, `optimizer` has the state that it gets by stepping; parameters, gradients and all else stay.

    One step with gradients of zero and a learning rate of zero, as `torch.distributed.checkpoint` does it. Nothing is done to
    an optimizer that has stepped.
    """
    if optimizer.state:
        yield
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    gradients = [parameter.grad for parameter in parameters]
    rates = [group["lr"] for group in optimizer.param_groups if "lr" in group]
    try:
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        for group in optimizer.param_groups:
            if "lr" in group:
                rate = group["lr"]
                group["lr"] = torch.zeros_like(rate) if isinstance(rate, torch.Tensor) else 0.0
        type(optimizer).step(optimizer)  # the class's own: a scheduler wraps the object's and counts
        yield
    finally:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        for group, rate in zip((group for group in optimizer.param_groups if "lr" in group), rates, strict=True):
            group["lr"] = rate
        optimizer.state.clear()
