"""What can be put together from memory: who has which rank's state of which generation. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.ring.protocol import Holding

OWN = -1
"""This worker itself, instead of the index of another."""
MAX_WHOLE = 4
"""Of a replicated state, as many holders are used beside the ones with the rank's own part."""


@dataclass(frozen=True)
class Held:
    """A holding, and where."""

    where: int
    """Index of the worker, or OWN."""
    holding: Holding


def obtainable(held: Iterable[Held], rank: int, world_size: int | None) -> list[Generation]:
    """The generations of which `rank` can have its state in a world of `world_size` (None: of the same size), newest first."""
    by_generation: dict[Generation, list[Holding]] = {}
    for item in held:
        by_generation.setdefault(item.holding.generation, []).append(item.holding)
    return sorted(
        (
            generation
            for generation, holdings in by_generation.items()
            if _is_enough(holdings, rank, world_size if world_size is not None else holdings[0].world_size)
        ),
        reverse=True,
    )


def _is_enough(holdings: list[Holding], rank: int, world_size: int) -> bool:
    saved_by = holdings[0].world_size
    if any(holding.world_size != saved_by for holding in holdings):
        return False  # two states of one name: nothing to rely on
    whole = {holding.rank for holding in holdings if holding.whole}
    if rank < saved_by and world_size == saved_by:
        needed = {rank}
    elif all(holding.replicated for holding in holdings):
        return bool(whole)
    else:
        needed = set(range(saved_by))
    # What a part lacks is replicated, and in every whole one.
    return whole >= needed or (bool(whole) and {holding.rank for holding in holdings} >= needed)


def sources_for(held: Iterable[Held], generation: Generation, rank: int) -> list[Held]:
    """Whom to ask for a state, the best first: who has the rank's own, then others; of replicas only a few."""
    found = [item for item in held if item.holding.generation == generation]
    own = [item for item in found if item.holding.rank == rank]
    rest = [item for item in found if item.holding.rank != rank]
    if all(item.holding.replicated for item in found):
        rest = [item for item in rest if item.holding.whole][:MAX_WHOLE]
    return sorted(own, key=lambda item: (item.where != OWN, not item.holding.whole)) + sorted(
        rest, key=lambda item: (item.where != OWN, item.holding.rank, not item.holding.whole)
    )
