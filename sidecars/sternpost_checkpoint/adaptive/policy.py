"""What the user asks of the codecs: `policy`, `prefer`, `maxUpdateError` and `maxChain` of spec.checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

ADAPTIVE_ERROR = 0.02
COMPACT_ERROR = 0.5
"""Relative L2 errors of an optimizer's next update; 4 bits a moment cost about .37, 8 bits .016."""
DEFAULT_CHAIN = 8


class Exactness(StrEnum):
    """How exact a checkpoint is."""

    LOSSLESS = "lossless"
    ADAPTIVE = "adaptive"
    """Weights and masters bit for bit, moments within a bound."""
    COMPACT = "compact"
    """The same, the moments as small as a wider bound allows."""


class Preference(StrEnum):
    """What counts when codecs differ."""

    SIZE = "size"
    SPEED = "speed"
    BALANCED = "balanced"


@dataclass(frozen=True)
class CodecPolicy:
    """All of it."""

    exactness: Exactness = Exactness.LOSSLESS
    prefer: Preference = Preference.BALANCED
    max_update_error: float = ADAPTIVE_ERROR
    """Of m/(sqrt(v)+eps), relative, L2."""
    max_chain: int = DEFAULT_CHAIN
    """Generations in a row that may build on each other; 0: none does."""

    @classmethod
    def of(
        cls,
        exactness: Exactness,
        prefer: Preference,
        max_update_error: float | None = None,
        max_chain: int = DEFAULT_CHAIN,
    ) -> Self:
        """The policy, with the bound that belongs to its exactness where none is given."""
        default = COMPACT_ERROR if exactness is Exactness.COMPACT else ADAPTIVE_ERROR
        return cls(exactness, prefer, default if max_update_error is None else max_update_error, max_chain)
