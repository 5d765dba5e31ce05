"""Which job is due when. Pure: time comes in."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K")


@dataclass(slots=True)
class _State:
    due: float | None = None
    """When it is to be taken next."""
    woken_at: float | None = None
    """Since when it waits although something calls for it."""
    active: bool = False
    woken_while_active: bool = False


class Schedule(Generic[K]):
    """Keys, each due once however often it is called for, and in work once at a time.

    Between two times that a key is taken lie at least `spacing` seconds, so that a burst of news is one piece of work.
    """

    def __init__(self, spacing: float) -> None:
        self._spacing = spacing
        self._states: dict[K, _State] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._taken_at: dict[K, float] = {}
        self._serial = 0

    def wake(self, key: K, now: float) -> None:
        """Something happened to it."""
        state = self._states.setdefault(key, _State())
        if state.active:
            state.woken_while_active = True
            return
        if state.woken_at is None:
            state.woken_at = now
        self._set_due(key, state, self._earliest(key, now))

    def take(self, now: float) -> tuple[K, float] | None:
        """A key that is due, and for how many seconds it was; in work from now on. None if there is none."""
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            state = self._states.get(key)
            if state is None or state.active or state.due != due:
                continue  # an entry that was overtaken
            waited = max(0.0, now - due)
            state.due = state.woken_at = None
            state.active = True
            self._taken_at[key] = now
            return key, waited
        return None

    def done(self, key: K, now: float, again_after: float | None) -> None:
        """The work is done; it is due again after so many seconds, or when something happens to it."""
        state = self._states[key]
        state.active = False
        if state.woken_while_active:
            state.woken_while_active = False
            state.woken_at = now
            self._set_due(key, state, self._earliest(key, now))
        elif again_after is not None:
            self._set_due(key, state, now + again_after)
        elif state.due is None:
            del self._states[key]
            self._taken_at.pop(key, None)

    def next_due(self) -> float | None:
        """When the next key is due."""
        while self._heap:
            due, _, key = self._heap[0]
            state = self._states.get(key)
            if state is not None and not state.active and state.due == due:
                return due
            heapq.heappop(self._heap)
        return None

    def depth(self, now: float) -> int:
        """How many keys are due and not taken."""
        return sum(state.due is not None and state.due <= now and not state.active for state in self._states.values())

    def _earliest(self, key: K, now: float) -> float:
        return max(now, self._taken_at.get(key, -self._spacing) + self._spacing)

    def _set_due(self, key: K, state: _State, due: float) -> None:
        if state.due is not None and state.due <= due:
            return
        state.due = due
        self._serial += 1
        heapq.heappush(self._heap, (due, self._serial, key))
