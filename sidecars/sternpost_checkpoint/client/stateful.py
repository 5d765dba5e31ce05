"""Taking the state out of the objects of a training script, and putting it back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sternpost_checkpoint.client.module_state import ModuleState
from sternpost_checkpoint.errors import CheckpointError


def is_stateful(value: Any) -> bool:
    """Whether `value` is an object with state_dict and load_state_dict."""
    return (
        not isinstance(value, type)
        and callable(getattr(value, "state_dict", None))
        and callable(getattr(value, "load_state_dict", None))
    )


def unwrap(model: torch.nn.Module) -> torch.nn.Module:
    """The module itself: DistributedDataParallel, DataParallel and torch.compile would put a prefix before each name."""
    while True:
        if isinstance(model, torch.nn.parallel.DistributedDataParallel | torch.nn.DataParallel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), torch.nn.Module):
            model = model._orig_mod  # type: ignore[assignment]  # noqa: SLF001 # what torch.compile's wrapper offers
        else:
            return model


def capture(value: Any, modules: dict[int, ModuleState]) -> Any:  # noqa: PLR0911 # one return for each kind of object
    """Return `value` with the objects in it replaced by their states. `modules` keeps what is known of them, by id."""
    if isinstance(value, torch.nn.Module):
        module = unwrap(value)
        if id(module) not in modules:
            modules[id(module)] = ModuleState(module)  # which keeps the module, so that the id stays its own
        return modules[id(module)].take()
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if is_stateful(value):
        return value.state_dict()
    if type(value) is dict:
        return {key: capture(item, modules) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(capture(item, modules) for item in value)
    return value


def put_back(value: Any, saved: Any, path: str) -> Any:
    """Put `saved` into `value`, in place where it can be; returns what shall stand in its place.

    Raises CheckpointError naming `path` when the object does not accept its state.
    """
    try:
        return _put_back(value, saved, path)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"the checkpoint does not fit {path}: {error}; restore it with the code that saved it, or give another"
            " spec.checkpoint.storage to begin afresh"
        ) from error


def _put_back(value: Any, saved: Any, path: str) -> Any:
    if isinstance(value, torch.nn.Module):
        unwrap(value).load_state_dict(saved)
    elif isinstance(value, torch.Generator):
        value.set_state(saved)
    elif isinstance(value, np.random.Generator):
        value.bit_generator.state = saved
    elif is_stateful(value):
        value.load_state_dict(saved)
    elif type(value) is dict and isinstance(saved, dict):
        for key, item in saved.items():
            value[key] = put_back(value[key], item, f"{path}/{key}") if key in value else item
    elif type(value) is list and isinstance(saved, list) and len(value) == len(saved):
        value[:] = [
            put_back(item, kept, f"{path}/{number}")
            for number, (item, kept) in enumerate(zip(value, saved, strict=True))
        ]
    elif isinstance(value, torch.Tensor) and isinstance(saved, torch.Tensor) and value.shape == saved.shape:
        # In place: the script may hold the same tensor elsewhere.
        with torch.no_grad():
            value.copy_(saved)
    else:
        return saved
    return value
