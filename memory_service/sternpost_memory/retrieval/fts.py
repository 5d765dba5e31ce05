"""A full-text index for each space, in SQLite's FTS5, over any connection: tenants share no statistics.

The index holds nothing of its own. It can be thrown away and filled again from log, facts and topics.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from sternpost_memory.model import Fact, NewObservation, Topic
from sternpost_memory.retrieval.query import match_expression
from sternpost_memory.store.base import CandidateKind

_KINDS = (CandidateKind.OBSERVATION, CandidateKind.FACT, CandidateKind.TOPIC)
_STRIDE = 4
"""A row's id is number * _STRIDE + kind."""


def create(connection: sqlite3.Connection, space: int) -> None:
    """An empty index for a space."""
    connection.execute(
        f"CREATE VIRTUAL TABLE {_table(space)} USING fts5(words, tokenize = 'porter unicode61 remove_diacritics 2')"
    )


def drop(connection: sqlite3.Connection, space: int) -> None:
    """Remove the index of a space."""
    connection.execute(f"DROP TABLE {_table(space)}")


def put(connection: sqlite3.Connection, space: int, kind: CandidateKind, rows: Iterable[tuple[int, str]]) -> None:
    """Index `rows` of (number, words)."""
    code = _KINDS.index(kind)
    connection.executemany(
        f"INSERT INTO {_table(space)} (rowid, words) VALUES (?, ?)",  # noqa: S608 - the table's name is a number of ours
        ((number * _STRIDE + code, words) for number, words in rows),
    )


def remove(connection: sqlite3.Connection, space: int, kind: CandidateKind, numbers: Iterable[int]) -> None:
    """Take rows out of the index, if they are in it."""
    code = _KINDS.index(kind)
    connection.executemany(
        f"DELETE FROM {_table(space)} WHERE rowid = ?",  # noqa: S608 - the table's name is a number of ours
        ((number * _STRIDE + code,) for number in numbers),
    )


def best(
    connection: sqlite3.Connection, space: int, terms: Sequence[str], limit: int
) -> list[tuple[CandidateKind, int, float]]:
    """The rows that have any of the terms: kind, number, relevance (BM25, larger is better), best first."""
    if not terms:
        return []
    rows = connection.execute(
        f"SELECT rowid, -rank FROM {_table(space)} WHERE {_table(space)} MATCH ? "  # noqa: S608 - as above
        "ORDER BY rank, rowid LIMIT ?",
        (match_expression(terms), limit),
    )
    return [(_KINDS[rowid % _STRIDE], rowid // _STRIDE, relevance) for rowid, relevance in rows]


def observation_words(observation: NewObservation) -> str:
    """What an observation is found by."""
    facts = (f"{name} {value}" for name, value in observation.attributes.items())
    return "\n".join([observation.text, *observation.entities, *facts])


def fact_words(fact: Fact) -> str:
    """What a fact is found by, and shown as."""
    return f"{fact.entity} {fact.attribute}: {fact.value}"


def topic_words(topic: Topic) -> str:
    """What a topic is found by, beside its observations and facts."""
    return f"{topic.id}\n{topic.title}\n{topic.summary}"


def _table(space: int) -> str:
    return f"words_{int(space)}"
