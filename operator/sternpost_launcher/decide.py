"""What to do about an Attempt: pure, from what is known and what this Pod has done so far."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Optional

from sternpost_launcher.attempt_file import Action, Attempt

_ORDER = {Action.HOLD: 0, Action.RUN: 1, Action.STOP: 2}


@dataclass(frozen=True)
class Known:
    """The newest Attempt that was accepted."""

    number: int
    id: str
    action: Action


class Role(Enum):
    """What this Pod is in an Attempt."""

    WORKER = "worker"
    SPARE = "spare"
    ABSENT = "absent"


@dataclass(frozen=True)
class Own:
    """What this Pod has done so far."""

    attempt: Optional[str]
    """Id of the last attempt that it began, whatever came of it."""
    alive: bool
    """Whether anything of it still runs: a preflight, a rank, a rank's descendant."""


class Step(Enum):
    """The next thing to do; `decide` is asked again after it."""

    KEEP = "keep"
    """Nothing: what runs shall run, what ended stays as it is reported."""
    END = "end"
    """End what runs."""
    WAIT = "wait"
    IDLE = "idle"
    START = "start"
    EXIT = "exit"


def accepts(known: Optional[Known], candidate: Known) -> bool:
    """Whether `candidate` may replace `known`: numbers only grow, and one number goes hold, run, stop."""
    if known is None or candidate.number > known.number:
        return True
    if candidate.number < known.number or candidate.id != known.id:
        return False
    return _ORDER[candidate.action] >= _ORDER[known.action]


def decide(attempt: Optional[Attempt], role: Role, own: Own) -> Step:
    """The next step. An attempt is begun at most once, and never while anything of another one is alive."""
    if attempt is None:
        return Step.KEEP
    begun = own.attempt == attempt.id
    if begun and (attempt.action is Action.HOLD or (attempt.action is Action.RUN and role is Role.WORKER)):
        return Step.KEEP
    if own.alive:
        return Step.END
    if attempt.action is Action.STOP:
        return Step.EXIT
    if attempt.action is Action.RUN and role is not Role.ABSENT:
        return Step.START if role is Role.WORKER else Step.IDLE
    return Step.WAIT
