"""The state of a plain module without calling `state_dict`, which costs microseconds for each of its submodules.

A module is plain when neither it nor a submodule changes what `state_dict` returns: no hooks, no methods of its own. Of such
a module the state is what stands in the dictionaries `_parameters` and `_buffers`, and whether these are still the same is
seen by comparing identities, all of it in C. Everything else goes through `state_dict`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from operator import attrgetter, is_
from typing import Any, cast

import torch

_METHODS = ("state_dict", "_save_to_state_dict", "get_extra_state")
_CONTAINERS = attrgetter("_parameters", "_buffers", "_modules")
_PERSISTENCE = attrgetter("_non_persistent_buffers_set")
_HOOKS = attrgetter("_state_dict_hooks", "_state_dict_pre_hooks")
_values = cast("Callable[[dict[Any, Any]], Iterable[Any]]", dict.values)
_NAMES = frozenset(_METHODS)


def _same(left: list[Any], right: list[Any]) -> bool:
    return len(left) == len(right) and all(map(is_, left, right))


def _is_plain(module: torch.nn.Module) -> bool:
    kind = type(module)
    return (
        all(getattr(kind, name) is getattr(torch.nn.Module, name) for name in _METHODS)
        and _NAMES.isdisjoint(vars(module))
        and not any(_HOOKS(module))
    )


class ModuleState:
    """Takes the state of one module, again and again."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        self._state: dict[str, torch.Tensor] | None = None

    def take(self) -> dict[str, Any]:
        """What `module.state_dict()` returns, but not detached; the same dictionary while nothing was exchanged."""
        if self._state is None or not self._is_same():
            self._build()
        if self._state is None:
            return self._module.state_dict()
        return self._state

    def _build(self) -> None:
        self._state = None
        named = list(self._module.named_modules(remove_duplicate=False))
        modules = [module for _, module in named]
        if not all(map(_is_plain, modules)):
            return
        state: dict[str, torch.Tensor] = {}
        for prefix, module in named:
            lead = f"{prefix}." if prefix else ""
            parameters, buffers, _ = _CONTAINERS(module)
            transient = _PERSISTENCE(module)
            state.update({lead + key: value for key, value in parameters.items() if value is not None})
            state.update(
                {lead + key: value for key, value in buffers.items() if value is not None and key not in transient}
            )
        self._modules = modules
        self._classes = list(map(type, modules))
        self._persistence = [set(_PERSISTENCE(module)) for module in modules]
        self._containers: list[dict[str, Any]] = list(chain.from_iterable(map(_CONTAINERS, modules)))
        self._lengths = list(map(len, self._containers))
        self._keys = list(chain.from_iterable(self._containers))
        self._contents = list(chain.from_iterable(map(_values, self._containers)))
        self._state = state

    def _is_same(self) -> bool:
        modules, containers = self._modules, self._containers
        return (
            _same(list(chain.from_iterable(map(_CONTAINERS, modules))), containers)
            and _same(list(chain.from_iterable(map(_values, containers))), self._contents)
            and list(map(len, containers)) == self._lengths
            and list(chain.from_iterable(containers)) == self._keys
            and _same(list(map(type, modules)), self._classes)
            and list(map(_PERSISTENCE, modules)) == self._persistence
            and not any(chain.from_iterable(map(_HOOKS, modules)))
            and all(map(_NAMES.isdisjoint, map(vars, modules)))
        )
