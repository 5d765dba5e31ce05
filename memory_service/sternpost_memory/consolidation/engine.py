"""What every consolidation engine is given and gives back. An engine decides; it reads and writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sternpost_memory.model import Fact, Observation, Topic

Routes = Mapping[int, tuple[str, ...]]
"""Sequence number → ids of the topics that the observation belongs to, at least one."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The oldest part of a space's buffer."""

    space: str
    base_seq: int
    """Last sequence number that earlier consolidations covered."""
    observations: Sequence[Observation]
    """In the order of the log, without gaps."""

    @property
    def last_seq(self) -> int:
        """Last sequence number that is covered once this batch is consolidated."""
        return self.observations[-1].seq if self.observations else self.base_seq


@dataclass(frozen=True, slots=True)
class Profile:
    """A topic as an observation without entities sees it."""

    topic: str
    text: str


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic before the consolidation, with what its document shows."""

    topic: Topic
    newest: Sequence[Observation]
    """The newest by event time that the topic has, at most `limits.DOCUMENT_ENTRIES`, in any order."""


@dataclass(frozen=True, slots=True)
class Base:
    """The state that a consolidation starts from."""

    batch: Batch
    topics: Mapping[str, TopicState]
    """Those of the topics asked for that exist."""
    current_facts: Mapping[str, Sequence[Fact]]
    """Entity → current facts, one a slot, sorted by attribute, the first `limits.DOCUMENT_FACTS` + 1 of them."""
    neighbours: Sequence[Fact] = field(default=())
    """For each fact that the batch states: the one before it and the one after it in its slot, where there are."""


@dataclass(frozen=True, slots=True)
class TopicChange:
    """A new version of a topic."""

    base_version: int
    """The version that it was computed from; 0 for a new topic."""
    topic: Topic
    added: Sequence[Observation]
    """Observations that came in, in the order of the log."""


@dataclass(frozen=True, slots=True)
class Change:
    """All that one consolidation changes. It is applied whole, on the base that it was computed from, or not at all."""

    space: str
    base_seq: int
    last_seq: int
    engine: str
    """Name and version of the engine: what is needed to compute the same again."""
    topics: Sequence[TopicChange]
    facts: Sequence[Fact]
    """New facts and those whose end changed."""


class Engine(Protocol):
    """Turns observations into documents and facts. The same input gives the same output, or the log is no longer enough."""

    @property
    def name(self) -> str:
        """Name and version, such as `deterministic/1`."""
        ...

    def route(self, batch: Batch, profiles: Sequence[Profile]) -> Routes:
        """The topics of each observation. `profiles` is empty when every observation names its entities."""
        ...

    def consolidate(self, base: Base, routes: Routes) -> Change:
        """The new versions of all topics in `routes`, and the facts."""
        ...
