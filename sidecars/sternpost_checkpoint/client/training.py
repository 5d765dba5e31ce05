"""The objects of a training script, as one state."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, Protocol

import torch

from sternpost_checkpoint.client.module_state import ModuleState
from sternpost_checkpoint.client.random_state import capture_random, restore_random
from sternpost_checkpoint.client.sharded import is_distributed, local_part
from sternpost_checkpoint.client.stateful import capture, put_back, unwrap
from sternpost_checkpoint.errors import CheckpointError

_log = logging.getLogger("sternpost_checkpoint")


class Stateful(Protocol):
    """An object with a state."""

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Take them back."""


Models = torch.nn.Module | Stateful | dict[str, torch.nn.Module]
Optimizers = torch.optim.Optimizer | Stateful | dict[str, torch.optim.Optimizer]


class Training:
    """Takes the state out of the objects, and puts one back."""

    def __init__(self, model: Models, optimizer: Optimizers | None, extra: dict[str, Any] | None) -> None:
        self._model = model
        self._optimizer = optimizer
        self._extra = extra if extra is not None else {}
        self._modules: dict[int, ModuleState] = {}

    def states(self) -> dict[str, Any]:
        """Everything, by role. The tensors are those of the objects, not copies."""
        return {
            **self.objects(),
            "extra": capture(self._extra, self._modules),
            "random": capture_random(),
        }

    def objects(self) -> dict[str, Any]:
        """The model and the optimizer alone."""
        states = {"model": capture(self._model, self._modules)}
        if self._optimizer is not None:
            states["optimizer"] = capture(self._optimizer, self._modules)
        return states

    def apply(self, states: dict[str, Any], rank: int) -> None:
        """Put a state back. Raises CheckpointError when it does not fit the objects."""
        if "model" not in states or (self._optimizer is not None and "optimizer" not in states):
            raise CheckpointError("the checkpoint holds no model or no optimizer: it is of another training script")
        put_back(self._model, states["model"], "model")
        if self._optimizer is not None:
            put_back(self._optimizer, states["optimizer"], "optimizer")
        put_back(self._extra, states.get("extra", {}), "extra")
        if "random" in states:
            restore_random(states["random"])
        else:
            _log.warning("rank %d did not exist when this state was saved: its random states stay", rank)

    def is_replicated(self) -> bool:
        """Whether DistributedDataParallel keeps the same model on all ranks."""
        wrapped = torch.nn.parallel.DistributedDataParallel
        modules = [module for _, module in self._models()]
        return bool(modules) and all(isinstance(module, wrapped) for module in modules)

    def is_sharded(self) -> bool:
        """Whether parameters are DTensors."""
        return any(is_distributed(parameter) for _, module in self._models() for parameter in module.parameters())

    def optimizers(self) -> Iterator[tuple[str, torch.optim.Optimizer]]:
        """Those that are known as such, each with the path of its state."""
        if isinstance(self._optimizer, dict):
            yield from ((f"optimizer/{name}", optimizer) for name, optimizer in self._optimizer.items())
        elif isinstance(self._optimizer, torch.optim.Optimizer):
            yield "optimizer", self._optimizer

    def families(self) -> dict[str, str]:
        """For each tensor of a model that an optimizer knows: the path of that parameter's state, of which it is a part."""
        states: dict[int, str] = {}
        for path, optimizer in self.optimizers():
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            states.update({id(parameter): f"{path}/state/{number}" for number, parameter in enumerate(parameters)})
        return {
            f"{path}/{name}": states[id(parameter)]
            for path, module in self._models()
            for name, parameter in unwrap(module).named_parameters(remove_duplicate=False)
            if id(parameter) in states
        }

    def future_bytes(self) -> int:
        """About how much the state of optimizers that have not stepped yet will add."""
        total = 0
        for _, optimizer in self.optimizers():
            if optimizer.state:
                continue
            copies = 2 if "betas" in optimizer.defaults else 1
            copies += 1 if optimizer.defaults.get("amsgrad") else 0
            for group in optimizer.param_groups:
                for parameter in map(local_part, group["params"]):
                    total += copies * (parameter.numel() * parameter.element_size() + 64) + 64
        return total

    def _models(self) -> Iterator[tuple[str, torch.nn.Module]]:
        if isinstance(self._model, dict):
            yield from ((f"model/{name}", module) for name, module in self._model.items())
        elif isinstance(self._model, torch.nn.Module):
            yield "model", self._model
