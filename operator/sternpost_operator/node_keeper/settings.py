"""What the operator was allowed to do to nodes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KeeperSettings:
    """All of it is opt-in."""

    cordon: bool = False
    """Cordon and taint nodes that have evidence of bad hardware against them."""
    drain: bool = False
    """Also evict the other Pods of nodes that Sternpost cordoned."""
    uncordon_seconds: float = 600
    """For how long the evidence must be gone before a node is given back: conditions flap."""
    max_share: float = 0.1
    """Never more than this share of the nodes is cordoned, by whomever, through what Sternpost does; one always may be."""
