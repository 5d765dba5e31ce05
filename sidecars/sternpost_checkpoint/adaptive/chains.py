"""Whether a generation builds on an earlier one. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sternpost_checkpoint.lineage import Generation

MIN_GAIN = 0.01
"""Of a generation's stored bytes, that deltas must save: a chain costs reads, and keeps generations that could be collected."""


@dataclass(frozen=True)
class Decision:
    """Whether to encode against the base, and why (not)."""

    delta: bool
    reason: str


@dataclass(frozen=True)
class BaseView:
    """The base, as far as the decision needs it."""

    generation: Generation
    chain: int
    """Of its manifest: generations that must be read behind it."""
    stored_since: int
    """Generations that this rank has stored after it, committed or not."""
    on_line: bool
    """It has not been abandoned."""


def may_build(base: BaseView | None, generation: Generation, *, max_chain: int, keep: int) -> Decision:
    """Whether the base may be one at all.

    A generation that others commit meanwhile must not push the base out of the storage. Every one that could, needs this rank's
    part: so there are at most `stored_since` of them, and the base is safe while the collection keeps more than that.
    """
    if base is None:
        return Decision(delta=False, reason="no base in memory")
    if base.generation >= generation or not base.on_line:
        return Decision(delta=False, reason="the base is not on the way to this state")
    if base.chain >= max_chain:
        return Decision(delta=False, reason=f"the chain has {base.chain} generations already")
    if base.stored_since >= keep:
        return Decision(delta=False, reason=f"{base.stored_since} later generations wait for their commit")
    return Decision(delta=True, reason=f"builds on step {base.generation.step}")


def pays(stored_without: float, saved: float) -> Decision:
    """Whether deltas save enough; both in bytes."""
    gain = saved / stored_without if stored_without > 0 else 0.0
    if gain < MIN_GAIN:
        return Decision(delta=False, reason=f"deltas would save {gain:.1%}")
    return Decision(delta=True, reason=f"deltas save {gain:.0%}")


def reachable(kept: Iterable[Generation], parents: Callable[[Generation], Sequence[Generation]]) -> set[Generation]:
    """Everything that the `kept` generations need, themselves included. Ends for any graph, cycles included."""
    found: set[Generation] = set()
    waiting = list(kept)
    while waiting:
        generation = waiting.pop()
        if generation not in found:
            found.add(generation)
            waiting.extend(parents(generation))
    return found
