"""What is computed from the log, in SQLite: topics and facts, read and replaced in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable

from sternpost_memory import limits
from sternpost_memory.consolidation.engine import Base, Batch, Change, Engine, Profile, TopicChange, TopicState
from sternpost_memory.consolidation.slots import facts_of
from sternpost_memory.errors import StoreConflict
from sternpost_memory.model import Fact, Observation
from sternpost_memory.retrieval import fts
from sternpost_memory.store import sqlite_log
from sternpost_memory.store.base import CandidateKind
from sternpost_memory.store.sqlite_rows import FACT, OBSERVATION, TOPIC, dumps, fact_from, observation_from, topic_from

# ruff: noqa: S608 - statements are put together from constants of `sqlite_rows`; values are always bound


def profiles(connection: sqlite3.Connection, number: int, limit: int) -> list[Profile]:
    """See `Store.profiles`."""
    rows = connection.execute(
        "SELECT id, profile FROM topics WHERE space = ? ORDER BY updated_at DESC, id LIMIT ?", (number, limit)
    )
    return [Profile(topic=topic, text=text) for topic, text in rows]


def base(connection: sqlite3.Connection, number: int, batch: Batch, topics: Collection[str]) -> Base:
    """See `Store.base`."""
    states: dict[str, TopicState] = {}
    for topic_id in sorted(topics):
        row = connection.execute(
            f"SELECT t.number, {TOPIC} FROM topics t WHERE space = ? AND id = ?", (number, topic_id)
        ).fetchone()
        if row:
            states[topic_id] = TopicState(topic=topic_from(row[1:]), newest=_newest(connection, row[0]))
    stated = [fact for observation in batch.observations for fact in facts_of(observation)]
    return Base(
        batch=batch,
        topics=states,
        current_facts={topic: _current_facts(connection, number, topic) for topic in topics},
        neighbours=_neighbours(connection, number, stated),
    )


def _newest(connection: sqlite3.Connection, topic: int) -> list[Observation]:
    rows = connection.execute(
        f"SELECT {OBSERVATION} FROM topic_entries e JOIN observations o ON o.space = e.space AND o.seq = e.seq "
        "WHERE e.topic = ? ORDER BY e.event_at DESC, e.seq DESC LIMIT ?",
        (topic, limits.DOCUMENT_ENTRIES),
    )
    return [observation_from(row) for row in rows]


def _current_facts(connection: sqlite3.Connection, number: int, entity: str) -> list[Fact]:
    rows = connection.execute(
        f"SELECT {FACT} FROM facts f WHERE space = ? AND entity = ? AND superseded_by IS NULL "
        "ORDER BY attribute LIMIT ?",
        (number, entity, limits.DOCUMENT_FACTS + 1),
    )
    return [fact_from(row) for row in rows]


def _neighbours(connection: sqlite3.Connection, number: int, stated: Iterable[Fact]) -> list[Fact]:
    slot = f"SELECT {FACT} FROM facts f WHERE space = ? AND entity = ? AND attribute = ? AND (valid_from, seq)"
    found: dict[str, Fact] = {}
    for fact in stated:
        place = (number, fact.entity, fact.attribute, *fact.order)
        for statement in (
            f"{slot} < (?, ?) ORDER BY valid_from DESC, seq DESC LIMIT 1",
            f"{slot} > (?, ?) ORDER BY valid_from, seq LIMIT 1",
        ):
            if row := connection.execute(statement, place).fetchone():
                found[row[0]] = fact_from(row)
    return list(found.values())


def commit(connection: sqlite3.Connection, change: Change, now: float) -> None:
    """See `Store.commit`; within a transaction."""
    number = sqlite_log.space_number(connection, change.space)
    last_seq, consolidated_seq = sqlite_log.space_seqs(connection, change.space)
    if number is None or consolidated_seq != change.base_seq or change.last_seq > last_seq:
        raise StoreConflict(
            f"the change was computed for what follows observation {change.base_seq}, but {consolidated_seq} are "
            "consolidated by now: plan again"
        )
    apply(connection, number, change)
    (size,) = connection.execute(
        "SELECT coalesce(sum(length(CAST(text AS BLOB))), 0) FROM observations WHERE space = ? AND seq BETWEEN ? AND ?",
        (number, change.base_seq + 1, change.last_seq),
    ).fetchone()
    connection.execute(
        "UPDATE spaces SET consolidated_seq = ?, buffer_bytes = buffer_bytes - ? WHERE number = ?",
        (change.last_seq, size, number),
    )
    connection.execute(
        "INSERT INTO consolidations (space, first_seq, last_seq, engine, committed_at) VALUES (?, ?, ?, ?, ?)",
        (number, change.base_seq + 1, change.last_seq, change.engine, now),
    )


def rebuild(connection: sqlite3.Connection, space: str, engine: Engine) -> None:
    """See `Store.rebuild`; within a transaction."""
    number = sqlite_log.space_number(connection, space)
    if number is None:
        return
    clear(connection, number)
    fts.drop(connection, number)
    fts.create(connection, number)
    last_seq, _ = sqlite_log.space_seqs(connection, space)
    step = limits.CONSOLIDATION_OBSERVATIONS
    for first in range(1, last_seq + 1, step):
        part = sqlite_log.observations(connection, number, first=first, last=min(last_seq, first + step - 1))
        fts.put(
            connection, number, CandidateKind.OBSERVATION, ((item.seq, fts.observation_words(item)) for item in part)
        )
    recorded = connection.execute(
        "SELECT first_seq, last_seq FROM consolidations WHERE space = ? ORDER BY last_seq", (number,)
    ).fetchall()
    for first_seq, last_seq_of_batch in recorded:
        batch = Batch(
            space=space,
            base_seq=first_seq - 1,
            observations=sqlite_log.observations(connection, number, first=first_seq, last=last_seq_of_batch),
        )
        apply(connection, number, computed(connection, number, batch, engine))


def clear(connection: sqlite3.Connection, number: int) -> None:
    """Forget all topics and facts of a space; within a transaction."""
    for statement in (
        "DELETE FROM topic_entries WHERE topic IN (SELECT number FROM topics WHERE space = ?)",
        "DELETE FROM topic_versions WHERE topic IN (SELECT number FROM topics WHERE space = ?)",
        "DELETE FROM topics WHERE space = ?",
        "DELETE FROM facts WHERE space = ?",
    ):
        connection.execute(statement, (number,))


def computed(connection: sqlite3.Connection, number: int, batch: Batch, engine: Engine) -> Change:
    """What a consolidation of `batch` gives on the state that is there."""
    homeless = any(not observation.entities for observation in batch.observations)
    routes = engine.route(batch, profiles(connection, number, limits.PROFILES) if homeless else ())
    topics = {topic for ids in routes.values() for topic in ids}
    return engine.consolidate(base(connection, number, batch, topics), routes)


def apply(connection: sqlite3.Connection, number: int, change: Change) -> None:
    """Put the topics and facts of a change in place; within a transaction.

    Raises:
        StoreConflict: a topic has not the version that the change was computed from.
    """
    for topic_change in change.topics:
        _put_topic(connection, number, topic_change)
    for fact in change.facts:
        _put_fact(connection, number, fact)


def _put_topic(connection: sqlite3.Connection, number: int, change: TopicChange) -> None:
    topic = change.topic
    row = connection.execute(
        "SELECT number, version FROM topics WHERE space = ? AND id = ?", (number, topic.id)
    ).fetchone()
    if (row[1] if row else 0) != change.base_version:
        raise StoreConflict(f"topic {topic.id} is not at version {change.base_version} any more: plan again")
    values = (
        topic.title, topic.summary, topic.created_at, topic.updated_at, topic.version, topic.sources, topic.size,
        topic.first_event_at, topic.last_event_at, dumps(topic.categories), topic.profile, topic.document,
    )  # fmt: skip
    if row:
        topic_number = row[0]
        connection.execute(
            "UPDATE topics SET title = ?, summary = ?, created_at = ?, updated_at = ?, version = ?, sources = ?, "
            "size = ?, first_event_at = ?, last_event_at = ?, categories = ?, profile = ?, document = ? "
            "WHERE number = ?",
            (*values, topic_number),
        )
        fts.remove(connection, number, CandidateKind.TOPIC, [topic_number])
    else:
        (topic_number,) = connection.execute(
            "INSERT INTO topics (title, summary, created_at, updated_at, version, sources, size, first_event_at, "
            "last_event_at, categories, profile, document, space, id) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING number",
            (*values, number, topic.id),
        ).fetchone()
    fts.put(connection, number, CandidateKind.TOPIC, [(topic_number, fts.topic_words(topic))])
    connection.execute(
        "INSERT INTO topic_versions (topic, version, updated_at, summary, size) VALUES (?, ?, ?, ?, ?)",
        (topic_number, topic.version, topic.updated_at, topic.summary, topic.size),
    )
    connection.executemany(
        "INSERT INTO topic_entries (topic, space, seq, version, event_at) VALUES (?, ?, ?, ?, ?)",
        ((topic_number, number, item.seq, topic.version, item.event_time) for item in change.added),
    )


def _put_fact(connection: sqlite3.Connection, number: int, fact: Fact) -> None:
    (fact_number,) = connection.execute(
        "INSERT INTO facts (space, id, entity, attribute, value, valid_from, valid_to, superseded_by, seq, source) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (space, id) DO UPDATE SET "
        "valid_to = excluded.valid_to, superseded_by = excluded.superseded_by RETURNING number",
        (
            number, fact.id, fact.entity, fact.attribute, dumps(fact.value), fact.valid_from, fact.valid_to,
            fact.superseded_by, fact.seq, fact.source,
        ),
    ).fetchone()  # fmt: skip
    # Only current facts are found by search; the others by history.
    fts.remove(connection, number, CandidateKind.FACT, [fact_number])
    if fact.superseded_by is None:
        fts.put(connection, number, CandidateKind.FACT, [(fact_number, fts.fact_words(fact))])
