"""How long to wait after a failure. Pure, but for the dice."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class BackOff(Generic[K]):
    """A pause for each key, doubled with each failure in a row, up to a limit, and spread."""

    def __init__(
        self,
        first: float,
        limit: float,
        *,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._first = first
        self._limit = limit
        self._dice = dice
        self._failures: dict[K, int] = {}

    def failed(self, key: K) -> float:
        """Seconds to wait: between half of the pause and all of it."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        pause = min(self._limit, self._first * 2.0 ** min(count, 32))
        return pause * (0.5 + self._dice() / 2)

    def succeeded(self, key: K) -> None:
        """The next failure is the first again; also when the key is not used any more."""
        self._failures.pop(key, None)
