"""Topics, facts and search over a space's rows in SQLite, whoever sees to it that they are there."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from sternpost_memory.consolidation.engine import Base, Batch, Profile
from sternpost_memory.model import Fact, Topic, TopicVersion
from sternpost_memory.retrieval import fts
from sternpost_memory.store import sqlite_log, sqlite_projection, sqlite_reading
from sternpost_memory.store.base import FactKey, FactQuery, Found

T = TypeVar("T")


class SqliteQueries(ABC):
    """The reading half of a `Store`."""

    @abstractmethod
    def _in_space(self, space: str, read: Callable[[sqlite3.Connection, int], T], otherwise: T) -> T:
        """What `read` finds, given a view of one moment and the space's number; `otherwise` if there is no such space."""

    def profiles(self, space: str, *, limit: int) -> list[Profile]:
        """See `Store.profiles`."""
        return self._in_space(
            space, lambda connection, number: sqlite_projection.profiles(connection, number, limit), []
        )

    def base(self, batch: Batch, topics: Collection[str]) -> Base:
        """See `Store.base`."""
        return self._in_space(
            batch.space,
            lambda connection, number: sqlite_projection.base(connection, number, batch, topics),
            Base(batch=batch, topics={}, current_facts={}),
        )

    def topics(self, space: str, *, after: str, limit: int, prefix: str = "") -> list[Topic]:
        """See `Store.topics`."""
        return self._in_space(
            space,
            lambda connection, number: sqlite_reading.topics(
                connection, number, after=after, limit=limit, prefix=prefix
            ),
            [],
        )

    def topic(self, space: str, topic_id: str) -> Topic | None:
        """See `Store.topic`."""
        return self._in_space(
            space, lambda connection, number: sqlite_reading.topic(connection, number, topic_id), None
        )

    def topic_versions(self, space: str, topic_id: str, *, before: int | None, limit: int) -> list[TopicVersion]:
        """See `Store.topic_versions`."""
        return self._in_space(
            space,
            lambda connection, number: sqlite_reading.topic_versions(
                connection, number, topic_id, before=before, limit=limit
            ),
            [],
        )

    def facts(self, space: str, query: FactQuery, *, after: FactKey | None, limit: int) -> list[Fact]:
        """See `Store.facts`."""
        return self._in_space(
            space,
            lambda connection, number: sqlite_reading.facts(connection, number, query, after=after, limit=limit),
            [],
        )

    def fact(self, space: str, fact_id: str) -> Fact | None:
        """See `Store.fact`."""
        return self._in_space(space, lambda connection, number: sqlite_reading.fact(connection, number, fact_id), None)

    def search(self, space: str, terms: Sequence[str], *, limit: int) -> Found:
        """See `Store.search`."""

        def found(connection: sqlite3.Connection, number: int) -> Found:
            return Found(
                seq=sqlite_log.space_seqs(connection, space)[0],
                candidates=[
                    sqlite_reading.candidate(connection, number, kind, reference, relevance)
                    for kind, reference, relevance in fts.best(connection, number, terms, limit)
                ],
            )

        return self._in_space(space, found, Found(seq=0, candidates=()))
