"""What is known of a tensor when its codec is chosen. Pure data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sternpost_checkpoint.adaptive.kinds import Kind


@dataclass(frozen=True)
class Trial:
    """What one codec would make of a tensor, as far as a sample tells."""

    codec: str
    share: float
    """Stored bytes for each raw byte."""
    bytes_per_second: float
    """Raw bytes that one thread encodes in a second."""
    delta: bool = False
    """It needs the base."""
    companion: bool = False
    """It needs the companion."""


@dataclass(frozen=True)
class Evidence:
    """One tensor of one save."""

    name: str
    bytes: int
    dtype: str
    kind: Kind = Kind.OTHER
    trials: Sequence[Trial] = field(default_factory=tuple)
    """Of the lossless codecs that this tensor fits; `raw` always does and need not be among them."""
    changed: float | None = None
    """Share of the elements that differ from the base (p); None without base."""
    entropy: float | None = None
    """Bits that a raw byte holds, as far as its planes' histograms tell, 0 to 8."""
    chain_share: float = 0.0
    """Bytes that a restore must read behind a delta of this tensor, for each raw byte."""
