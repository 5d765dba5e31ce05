"""Which generation all ranks restore. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sternpost_checkpoint.lineage import Generation


@dataclass(frozen=True)
class Offer:
    """What one rank can get."""

    memory: frozenset[Generation]
    storage: frozenset[Generation]
    peer: frozenset[Generation] = frozenset()
    """In the memory of other workers, complete."""

    @property
    def all(self) -> frozenset[Generation]:
        """From anywhere."""
        return self.memory | self.storage | self.peer


def choose(offers: Sequence[Offer], refused: Collection[Generation]) -> Generation | None:
    """Choose the newest generation that every rank can get and none has found damaged."""
    common = frozenset.intersection(*(offer.all for offer in offers)) - frozenset(refused)
    return max(common, default=None)
