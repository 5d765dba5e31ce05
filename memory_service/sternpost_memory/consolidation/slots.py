"""Facts in slots: which value holds when. The newest wins, by event time and then by place in the log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

from sternpost_memory.model import Fact, Observation


def facts_of(observation: Observation) -> list[Fact]:
    """The facts that an observation states: its attributes, about its first entity."""
    if not observation.entities:
        return []
    return [
        Fact(
            id=f"{observation.seq}.{number}",
            entity=observation.entities[0],
            attribute=attribute,
            value=observation.attributes[attribute],
            valid_from=observation.event_time,
            seq=observation.seq,
            source=observation.source,
        )
        for number, attribute in enumerate(sorted(observation.attributes))
    ]


def supersede(stated: Iterable[Fact], neighbours: Iterable[Fact]) -> list[Fact]:
    """Put newly stated facts into the histories of their slots.

    `neighbours` has, for each of them, the fact before and the fact after it in its slot. A fact ends when the next one
    begins; so a late arrival finds its place in the past and takes nothing from the current value. A value that is
    stated again is a fact of its own: no update is dropped because it looks like something that is known.

    Returns the facts that are new or whose end changed, sorted by slot and order.
    """
    new: dict[tuple[str, str], list[Fact]] = defaultdict(list)
    for fact in stated:
        new[fact.entity, fact.attribute].append(fact)
    known: dict[tuple[str, str], dict[str, Fact]] = defaultdict(dict)
    for fact in neighbours:
        known[fact.entity, fact.attribute][fact.id] = fact
    changed: list[Fact] = []
    for key in sorted(new):
        changed += _linked(new[key], list(known[key].values()))
    return changed


def _linked(new: Sequence[Fact], known: Sequence[Fact]) -> list[Fact]:
    new_ids = {fact.id for fact in new}
    history = sorted([*known, *new], key=lambda fact: fact.order)
    changed: list[Fact] = []
    for fact, follower in pairwise(history):
        # Between two neighbours that were known already there may be others that were not asked for.
        if fact.id in new_ids or follower.id in new_ids:
            changed.append(fact.model_copy(update={"valid_to": follower.valid_from, "superseded_by": follower.id}))
    if history[-1].id in new_ids:
        changed.append(history[-1])
    return changed


def merge_current(current: Sequence[Fact], changed: Iterable[Fact]) -> list[Fact]:
    """The current facts of an entity after `changed`, one a slot, sorted by attribute."""
    merged = {fact.attribute: fact for fact in current}
    for fact in changed:
        if fact.superseded_by is None:
            merged[fact.attribute] = fact
    return [merged[attribute] for attribute in sorted(merged)]
