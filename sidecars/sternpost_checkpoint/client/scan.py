"""A state taken apart into flat lists, so that the next save can tell within microseconds what is still the same.

A scan of a tree holds everything that its JSON depends on: `tokens` (containers, their lengths and keys, and the kind of each
leaf, in depth-first order, so that two trees with equal tokens have the same form), the plain values, and the tensors. The
order of the tensors is that in which `tree.encode` meets them.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from enum import Enum, auto
from itertools import chain
from typing import Any, cast

import numpy as np
import torch

from sternpost_checkpoint.client.tree import DICTIONARIES, MAX_DEPTH, from_numpy
from sternpost_checkpoint.errors import CheckpointError


class Token(Enum):
    """What a container or a leaf is. No key is equal to one."""

    TENSORS = auto()
    """A dictionary whose values are all tensors."""
    GROUPS = auto()
    """A dictionary of such dictionaries: the state of an optimizer."""
    TEXT_KEYS = auto()
    NUMBER_KEYS = auto()
    OTHER_KEYS = auto()
    NUMBERS = auto()
    """A list of integers: the parameters of a group."""
    TENSOR = auto()
    ARRAY = auto()
    SCALAR = auto()


_TENSORS = frozenset({torch.Tensor, torch.nn.Parameter})
_IMMUTABLE = frozenset({type(None), bool, int, str, bytes, torch.dtype})
_TEXT = frozenset({str})
_NUMBER = frozenset({int})
_PLAIN_KEYS = (_TEXT, _NUMBER)
_DICTIONARY = frozenset({dict})
_values = cast("Callable[[dict[Any, Any]], Iterable[Any]]", dict.values)


class Scan:
    """One tree. `opaque`: there is something in it that only `tree.encode` can judge, so nothing may be concluded."""

    def __init__(self, value: Any) -> None:
        self.tokens: list[Any] = []
        self.values: list[Any] = []
        """Plain values without floats; their types are tokens."""
        self.floats = array("d")
        self.tensors: list[torch.Tensor] = []
        self.fresh: set[int] = set()
        """Positions in `tensors` of those that were made for this scan."""
        self.opaque = False
        self._add(value, 0)

    def has_form_of(self, other: Scan) -> bool:
        """Whether both trees have the same containers, keys and kinds of leaves."""
        return not (self.opaque or other.opaque) and self.tokens == other.tokens

    def has_values_of(self, other: Scan) -> bool:
        """Whether all plain values are the same, floats bit by bit; both have the same form."""
        return self.values == other.values and self.floats.tobytes() == other.floats.tobytes()

    def _add(self, value: Any, depth: int) -> None:
        kind = type(value)
        if kind is float:
            self.tokens.append(float)
            self.floats.append(value)
        elif kind in _IMMUTABLE:
            self.tokens.append(kind)
            self.values.append(value)
        elif isinstance(value, torch.Tensor):
            self.tokens.append(Token.TENSOR)
            self.tensors.append(value)
        elif depth > MAX_DEPTH:
            self.opaque = True
        elif kind in DICTIONARIES:
            self._add_dictionary(value, depth)
        elif kind in (list, tuple, torch.Size):
            self._add_sequence(value, kind, depth)
        elif isinstance(value, np.generic | np.ndarray):
            self._add_array(value)
        else:
            self.opaque = True

    def _add_array(self, value: Any) -> None:
        try:
            tensor = from_numpy(np.asarray(value), "array")
        except CheckpointError:
            self.opaque = True
            return
        self.tokens.append(Token.SCALAR if isinstance(value, np.generic) else Token.ARRAY)
        self.fresh.add(len(self.tensors))
        self.tensors.append(tensor)

    def _add_sequence(self, value: Any, kind: type, depth: int) -> None:
        if value and kind is list and frozenset(map(type, value)) == _NUMBER:
            self.tokens += (Token.NUMBERS, len(value))
            self.values.extend(value)
            return
        self.tokens += (kind, len(value))
        for item in value:
            self._add(item, depth + 1)

    def _add_dictionary(self, value: dict[Any, Any], depth: int) -> None:
        keys = frozenset(map(type, value))
        kinds = frozenset(map(type, value.values()))
        # The next two branches are most of a training's state: not one step of Python for each tensor.
        if kinds and kinds <= _TENSORS and keys in _PLAIN_KEYS:
            self.tokens += (Token.TENSORS, len(value))
            self.tokens.extend(value)
            self.tensors.extend(value.values())
            return
        if kinds == _DICTIONARY and keys == _NUMBER and self._add_groups(value):
            return
        if keys <= _TEXT:
            self.tokens += (Token.TEXT_KEYS, len(value))
            self.tokens.extend(value)
        elif keys == _NUMBER:
            self.tokens += (Token.NUMBER_KEYS, len(value))
            self.tokens.extend(value)
        else:
            # 1 and True are equal but not the same key; their representations differ.
            self.tokens += (Token.OTHER_KEYS, len(value))
            self.tokens.extend((type(key), repr(key)) for key in value)
        for item in value.values():
            self._add(item, depth + 1)

    def _add_groups(self, value: dict[int, dict[Any, Any]]) -> bool:
        inner = list(value.values())
        tensors = list(chain.from_iterable(map(_values, inner)))
        names = list(chain.from_iterable(inner))
        if not frozenset(map(type, tensors)) <= _TENSORS or not frozenset(map(type, names)) <= _TEXT:
            return False
        self.tokens += (Token.GROUPS, len(value))
        self.tokens.extend(value)
        self.tokens.extend(map(len, inner))
        self.tokens.extend(names)
        self.tensors.extend(tensors)
        return True
