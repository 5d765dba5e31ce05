"""What a store does, whatever it is made of."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from sternpost_memory.consolidation.engine import Base, Batch, Change, Engine, Profile
from sternpost_memory.model import AttributeValue, Fact, Job, NewObservation, Observation, Topic, TopicVersion


@dataclass(frozen=True, slots=True)
class Appended:
    """The answer to a write: all of it is safe on disk."""

    job: str
    seqs: Sequence[int]
    replayed: bool = False
    """True if the same request had been written before."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """Observations of a space that no topic document has yet."""

    space: str
    count: int
    size: int
    """UTF-8 bytes of their texts."""
    oldest_at: float
    """When the oldest of them arrived, Unix seconds."""


@dataclass(frozen=True, slots=True)
class FactQuery:
    """Which facts."""

    entity: str | None = None
    attribute: str | None = None
    at: float | None = None
    """Those that held at this time (Unix seconds) rather than those that hold now."""
    history: bool = False
    """All that ever held; `at` is not looked at."""


FactKey = tuple[str, str, float, int]
"""Place of a fact in the order of a listing: entity, attribute, valid from, seq."""


class CandidateKind(StrEnum):
    """What a search found."""

    OBSERVATION = "observation"
    FACT = "fact"
    TOPIC = "topic"


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that shares words with a query."""

    kind: CandidateKind
    text: str
    topic: str | None
    """None for an observation that is still in the buffer."""
    relevance: float
    """BM25, larger is better; comparable within one search only."""
    observations: Sequence[int]
    source: str
    at: float
    """When it happened, or was last updated; Unix seconds."""
    attributes: dict[str, AttributeValue]
    superseded: bool
    """Whether all facts that it states have been replaced by newer ones."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search sees: everything up to `seq`."""

    seq: int
    candidates: Sequence[Candidate]


class Store(Protocol):
    """The log, and what is computed from it. Every method raises `StoreError` when the store cannot do it.

    A space exists once something is written to it; reading one that does not exist finds nothing.
    """

    def append(
        self,
        space: str,
        observations: Sequence[NewObservation],
        *,
        now: float,
        idempotency_key: str | None = None,
        request_hash: bytes = b"",
    ) -> Appended:
        """Write a batch to the log, durably and whole.

        Raises:
            KeyReused: `idempotency_key` was used in this space for a request with another hash.
        """
        ...

    def request_consolidation(self, space: str, *, now: float) -> Job:
        """A job that is done when all that is in the space's log now is consolidated."""
        ...

    def job(self, job_id: str) -> Job | None:
        """The job, with its state as of now."""
        ...

    def last_seq(self, space: str) -> int:
        """The newest sequence number of a space, 0 if there is none."""
        ...

    def observations(self, space: str, *, after: int, limit: int) -> list[Observation]:
        """The log from `after` on (not included)."""
        ...

    def buffers(self) -> list[Buffer]:
        """All spaces that have something to consolidate."""
        ...

    def batch(self, space: str, *, limit: int) -> Batch:
        """The oldest part of the buffer."""
        ...

    def profiles(self, space: str, *, limit: int) -> list[Profile]:
        """The topics updated last."""
        ...

    def base(self, batch: Batch, topics: Collection[str]) -> Base:
        """What a consolidation of `batch` into `topics` starts from."""
        ...

    def commit(self, change: Change, *, now: float) -> None:
        """Apply a change whole, durably.

        Raises:
            StoreConflict: something it was computed from has changed; nothing is applied.
        """
        ...

    def rebuild(self, space: str, engine: Engine) -> None:
        """Compute topics, facts and search index again from the log, at once for all readers."""
        ...

    def spaces(self) -> list[str]:
        """The names of all spaces, sorted."""
        ...

    def topics(self, space: str, *, after: str, limit: int, prefix: str = "") -> list[Topic]:
        """Topics whose id begins with `prefix`, sorted by id, from `after` on (not included)."""
        ...

    def topic(self, space: str, topic_id: str) -> Topic | None:
        """One topic."""
        ...

    def topic_versions(self, space: str, topic_id: str, *, before: int | None, limit: int) -> list[TopicVersion]:
        """Versions of a topic below `before`, newest first; empty if there is no such topic."""
        ...

    def facts(self, space: str, query: FactQuery, *, after: FactKey | None, limit: int) -> list[Fact]:
        """Facts, sorted by `FactKey`, from `after` on (not included)."""
        ...

    def fact(self, space: str, fact_id: str) -> Fact | None:
        """One fact."""
        ...

    def search(self, space: str, terms: Sequence[str], *, limit: int) -> Found:
        """Observations (consolidated or not), current facts and topics that have any of the terms, best first."""
        ...

    def check(self) -> None:
        """Raise `StoreError` unless the store can be read."""
        ...

    def close(self) -> None:
        """Let go of all files. The store cannot be used any more."""
        ...
