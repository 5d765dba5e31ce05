"""Topics, facts and search results, read from SQLite."""

from __future__ import annotations

import sqlite3

from sternpost_memory.model import Fact, Topic, TopicVersion
from sternpost_memory.retrieval import fts
from sternpost_memory.store.base import Candidate, CandidateKind, FactKey, FactQuery
from sternpost_memory.store.sqlite_rows import FACT, OBSERVATION, TOPIC, fact_from, observation_from, topic_from

# ruff: noqa: S608 - statements are put together from constants of `sqlite_rows`; values are always bound

SHOWN_OBSERVATIONS = 20
"""Newest observations named with a topic that a search finds."""


def topics(connection: sqlite3.Connection, number: int, *, after: str, limit: int, prefix: str) -> list[Topic]:
    """See `Store.topics`."""
    rows = connection.execute(
        f"SELECT {TOPIC} FROM topics t WHERE space = ? AND id > ? AND substr(id, 1, ?) = ? ORDER BY id LIMIT ?",
        (number, after, len(prefix), prefix, limit),
    )
    return [topic_from(row) for row in rows]


def topic(connection: sqlite3.Connection, number: int, topic_id: str) -> Topic | None:
    """See `Store.topic`."""
    row = connection.execute(f"SELECT {TOPIC} FROM topics t WHERE space = ? AND id = ?", (number, topic_id)).fetchone()
    return topic_from(row) if row else None


def topic_versions(
    connection: sqlite3.Connection, number: int, topic_id: str, *, before: int | None, limit: int
) -> list[TopicVersion]:
    """See `Store.topic_versions`."""
    rows = connection.execute(
        "SELECT v.topic, v.version, v.updated_at, v.summary, v.size FROM topic_versions v "
        "JOIN topics t ON t.number = v.topic WHERE t.space = ? AND t.id = ? AND (? IS NULL OR v.version < ?) "
        "ORDER BY v.version DESC LIMIT ?",
        (number, topic_id, before, before, limit),
    ).fetchall()
    versions = []
    for topic_number, version, updated_at, summary, size in rows:
        seqs = connection.execute(
            "SELECT seq FROM topic_entries WHERE topic = ? AND version = ? ORDER BY seq", (topic_number, version)
        )
        versions.append(
            TopicVersion(
                version=version, updated_at=updated_at, summary=summary, size=size, observations=[s for (s,) in seqs]
            )
        )
    return versions


def facts(
    connection: sqlite3.Connection, number: int, query: FactQuery, *, after: FactKey | None, limit: int
) -> list[Fact]:
    """See `Store.facts`."""
    conditions = ["space = ?"]
    parameters: list[str | float] = [number]
    if query.entity is not None:
        conditions.append("entity = ?")
        parameters.append(query.entity)
    if query.attribute is not None:
        conditions.append("attribute = ?")
        parameters.append(query.attribute)
    if query.history:
        pass
    elif query.at is not None:
        conditions.append("valid_from <= ? AND (valid_to IS NULL OR valid_to > ?)")
        parameters += [query.at, query.at]
    else:
        conditions.append("superseded_by IS NULL")
    if after is not None:
        conditions.append("(entity, attribute, valid_from, seq) > (?, ?, ?, ?)")
        parameters += after
    rows = connection.execute(
        f"SELECT {FACT} FROM facts f WHERE {' AND '.join(conditions)} "
        "ORDER BY entity, attribute, valid_from, seq LIMIT ?",
        (*parameters, limit),
    )
    return [fact_from(row) for row in rows]


def fact(connection: sqlite3.Connection, number: int, fact_id: str) -> Fact | None:
    """See `Store.fact`."""
    row = connection.execute(f"SELECT {FACT} FROM facts f WHERE space = ? AND id = ?", (number, fact_id)).fetchone()
    return fact_from(row) if row else None


def candidate(
    connection: sqlite3.Connection, number: int, kind: CandidateKind, reference: int, relevance: float
) -> Candidate:
    """What the index found, as one can show it."""
    match kind:
        case CandidateKind.OBSERVATION:
            return _observation(connection, number, reference, relevance)
        case CandidateKind.FACT:
            return _fact(connection, reference, relevance)
        case CandidateKind.TOPIC:
            return _topic(connection, reference, relevance)


def _observation(connection: sqlite3.Connection, number: int, seq: int, relevance: float) -> Candidate:
    row = connection.execute(
        f"SELECT {OBSERVATION} FROM observations o WHERE space = ? AND seq = ?", (number, seq)
    ).fetchone()
    observation = observation_from(row)
    in_topics = [
        topic_id
        for (topic_id,) in connection.execute(
            "SELECT t.id FROM topic_entries e JOIN topics t ON t.number = e.topic WHERE e.space = ? AND e.seq = ? "
            "ORDER BY t.id",
            (number, seq),
        )
    ]
    first = observation.entities[0] if observation.entities else None
    stated, current = connection.execute(
        "SELECT count(*), count(*) FILTER (WHERE superseded_by IS NULL) FROM facts WHERE space = ? AND seq = ?",
        (number, seq),
    ).fetchone()
    return Candidate(
        kind=CandidateKind.OBSERVATION,
        text=observation.text,
        topic=first if first in in_topics else (in_topics[0] if in_topics else None),
        relevance=relevance,
        observations=[seq],
        source=observation.source,
        at=observation.event_time,
        attributes=observation.attributes,
        superseded=stated > 0 and current == 0,
    )


def _fact(connection: sqlite3.Connection, reference: int, relevance: float) -> Candidate:
    found = fact_from(connection.execute(f"SELECT {FACT} FROM facts f WHERE number = ?", (reference,)).fetchone())
    return Candidate(
        kind=CandidateKind.FACT,
        text=fts.fact_words(found),
        topic=found.entity,
        relevance=relevance,
        observations=[found.seq],
        source=found.source,
        at=found.valid_from,
        attributes={found.attribute: found.value},
        superseded=False,
    )


def _topic(connection: sqlite3.Connection, reference: int, relevance: float) -> Candidate:
    title, summary, updated_at, topic_id = connection.execute(
        "SELECT title, summary, updated_at, id FROM topics WHERE number = ?", (reference,)
    ).fetchone()
    seqs = connection.execute(
        "SELECT seq FROM topic_entries WHERE topic = ? ORDER BY event_at DESC, seq DESC LIMIT ?",
        (reference, SHOWN_OBSERVATIONS),
    )
    return Candidate(
        kind=CandidateKind.TOPIC,
        text=f"{title}: {summary}",
        topic=topic_id,
        relevance=relevance,
        observations=[seq for (seq,) in seqs],
        source="",
        at=updated_at,
        attributes={},
        superseded=False,
    )
