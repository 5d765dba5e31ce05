"""When so many are blamed that it cannot be their fault."""

from __future__ import annotations

from collections.abc import Collection


def breaks_circuit(blamed: Collection[str], nodes: Collection[str]) -> bool:
    """Whether so many nodes are blamed at once that the job, or the network, is at fault and not they.

    One node alone is always believed, also if it is the only one.
    """
    return len(set(blamed)) > 1 and 2 * len(set(blamed)) > len(set(nodes))
