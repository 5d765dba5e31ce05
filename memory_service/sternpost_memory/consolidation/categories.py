"""Counts of observations by category: what a topic's summary says first."""

from __future__ import annotations

from collections.abc import Mapping

from sternpost_memory import limits
from sternpost_memory.model import Observation

CATEGORY_ATTRIBUTES = ("cause", "kind", "event")
"""The first of these attributes that an observation has names its category."""
UNNAMED = ""
"""Category of observations that name none."""
OTHERS = "…"
"""Category of all that come after the first `limits.CATEGORIES`."""
CATEGORY_CHARACTERS = 60


def category(observation: Observation) -> str:
    """The category of an observation, one short printable line."""
    for attribute in CATEGORY_ATTRIBUTES:
        if attribute in observation.attributes:
            line = " ".join(str(observation.attributes[attribute]).split())
            return "".join(c for c in line if c.isprintable())[:CATEGORY_CHARACTERS]
    return UNNAMED


def counted(counts: Mapping[str, int], observation: Observation) -> dict[str, int]:
    """`counts` with one more observation."""
    name = category(observation)
    if name not in counts and len(counts) >= limits.CATEGORIES:
        name = OTHERS
    return {**counts, name: counts.get(name, 0) + 1}


def incidents_line(counts: Mapping[str, int]) -> str:
    """Such as `3 incidents: NodeLost 2, SlowNode 1; 4 observations`."""
    named = {name: count for name, count in counts.items() if name != UNNAMED}
    parts = []
    if named:
        ordered = sorted(named.items(), key=lambda item: (item[0] == OTHERS, -item[1], item[0]))
        shown = ", ".join(f"{'others' if name == OTHERS else name} {count}" for name, count in ordered)
        parts.append(f"{_plural(sum(named.values()), 'incident')}: {shown}")
    if unnamed := counts.get(UNNAMED, 0):
        parts.append(_plural(unnamed, "other observation" if named else "observation"))
    return "; ".join(parts)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
