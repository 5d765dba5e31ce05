"""Who leads: a Lease that the leader renews, seen by one replica. Pure: time comes in, what to write comes out.

Clocks of machines are never compared. A replica measures by its own clock for how long the Lease has not changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

LEASE_SECONDS = 10.0
"""A Lease that has not changed for so long may be taken."""
RENEW_DEADLINE_SECONDS = 7.0
"""A leader that could not renew for so long leads no more: before any other can begin to."""
RETRY_SECONDS = 2.5
"""Between two renewals."""


@dataclass(frozen=True)
class Lease:
    """The Lease object."""

    holder: str
    """Empty where it was given back."""
    version: str = ""
    """`metadata.resourceVersion`."""
    acquired_at: datetime | None = None
    renewed_at: datetime | None = None
    transitions: int = 0
    duration_seconds: float = LEASE_SECONDS


class Do(StrEnum):
    """What the replica does next."""

    WAIT = "wait"
    TAKE = "take"
    """Write the Lease: it is free."""
    RENEW = "renew"
    END = "end"
    """Lead no more: end the process."""


@dataclass(frozen=True)
class Step:
    """What to do, and for `WAIT` for how many seconds, unless the Lease changes before."""

    do: Do
    seconds: float = 0.0


class Election:
    """One replica's view. `now` is always its own monotonic clock, in seconds. `on_transition`: the holder is another now."""

    def __init__(self, identity: str, now: float, on_transition: Callable[[], None] = lambda: None) -> None:
        self.identity = identity
        self.leads = False
        self._on_transition = on_transition
        self._lease: Lease | None = None
        self._changed_at = now
        self._renewed_at = 0.0
        self._tried_at: float | None = None

    @property
    def lease(self) -> Lease | None:
        """As it was seen last."""
        return self._lease

    def seen(self, lease: Lease | None, now: float) -> None:
        """The Lease is like this; None: there is none."""
        before = self._lease
        if lease == before and before is not None:
            return
        if before is not None and lease is not None and lease.holder != before.holder:
            self._on_transition()
        self._lease = lease
        self._changed_at = now

    def wrote(self, lease: Lease, asked_at: float) -> None:
        """The write that was begun at `asked_at` was taken: it counts from then on, for others may have seen it since."""
        self.seen(lease, asked_at)
        self.leads = True
        self._renewed_at = asked_at
        self._tried_at = asked_at

    def failed(self, now: float) -> None:
        """A write was not taken, or not answered."""
        self._tried_at = now

    def next(self, now: float) -> Step:
        """What to do now."""
        return self._lead(now) if self.leads else self._follow(now)

    def to_write(self, at: datetime) -> Lease:
        """The Lease with this replica as its holder."""
        known = self._lease
        if known is not None and known.holder == self.identity and self.leads:
            return Lease(self.identity, known.version, known.acquired_at or at, at, known.transitions)
        transitions = known.transitions + 1 if known is not None else 0
        return Lease(self.identity, known.version if known else "", at, at, transitions)

    def to_give_back(self, at: datetime) -> Lease | None:
        """The Lease without a holder, if this replica leads."""
        known = self._lease
        if not self.leads or known is None:
            return None
        return Lease("", known.version, known.acquired_at, at, known.transitions, 1.0)

    def _lead(self, now: float) -> Step:
        known = self._lease
        if known is None or known.holder != self.identity or now - self._renewed_at >= RENEW_DEADLINE_SECONDS:
            return Step(Do.END)
        last = self._tried_at if self._tried_at is not None else self._renewed_at
        is_late = last > self._renewed_at
        due = last + (RETRY_SECONDS / 5 if is_late else RETRY_SECONDS)
        due = min(due, self._renewed_at + RENEW_DEADLINE_SECONDS)
        return Step(Do.RENEW) if now >= due else Step(Do.WAIT, due - now)

    def _follow(self, now: float) -> Step:
        known = self._lease
        free_at = now if known is None or not known.holder else self._changed_at + max(1.0, known.duration_seconds)
        if self._tried_at is not None:
            free_at = max(free_at, self._tried_at + RETRY_SECONDS / 5)
        return Step(Do.TAKE) if now >= free_at else Step(Do.WAIT, free_at - now)
