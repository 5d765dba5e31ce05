"""Tables of the SQLite store, and how an older file becomes one of this version."""

from __future__ import annotations

import sqlite3
import time

from sternpost_memory.errors import StoreCorrupted, StoreTooNew

APPLICATION_ID = 0x53504D31
"""Marks the file as ours: `SPM1`."""

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE spaces (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        last_seq INTEGER NOT NULL,
        consolidated_seq INTEGER NOT NULL,
        buffer_bytes INTEGER NOT NULL,
        created_at REAL NOT NULL
    ) STRICT;
    CREATE INDEX spaces_with_buffer ON spaces (number) WHERE last_seq > consolidated_seq;

    -- The log. Rows are never changed.
    CREATE TABLE observations (
        space INTEGER NOT NULL REFERENCES spaces (number),
        seq INTEGER NOT NULL,
        text TEXT NOT NULL,
        occurred_at REAL,
        received_at REAL NOT NULL,
        source TEXT NOT NULL,
        entities TEXT NOT NULL,
        attributes TEXT NOT NULL,
        PRIMARY KEY (space, seq)
    ) STRICT;

    -- Part of the log: which observations were consolidated together, by what.
    CREATE TABLE consolidations (
        space INTEGER NOT NULL REFERENCES spaces (number),
        first_seq INTEGER NOT NULL,
        last_seq INTEGER NOT NULL,
        engine TEXT NOT NULL,
        committed_at REAL NOT NULL,
        PRIMARY KEY (space, last_seq)
    ) STRICT;

    CREATE TABLE jobs (
        id TEXT PRIMARY KEY,
        space INTEGER NOT NULL REFERENCES spaces (number),
        kind TEXT NOT NULL,
        first_seq INTEGER NOT NULL,
        last_seq INTEGER NOT NULL,
        created_at REAL NOT NULL,
        idempotency_key TEXT,
        request_hash BLOB
    ) STRICT;
    CREATE UNIQUE INDEX jobs_by_key ON jobs (space, idempotency_key) WHERE idempotency_key IS NOT NULL;

    -- All that follows is computed from the log.
    CREATE TABLE topics (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        space INTEGER NOT NULL REFERENCES spaces (number),
        id TEXT NOT NULL,
        title TEXT NOT NULL,
        summary TEXT NOT NULL,
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        version INTEGER NOT NULL,
        sources INTEGER NOT NULL,
        size INTEGER NOT NULL,
        first_event_at REAL NOT NULL,
        last_event_at REAL NOT NULL,
        categories TEXT NOT NULL,
        profile TEXT NOT NULL,
        document TEXT NOT NULL,
        UNIQUE (space, id)
    ) STRICT;
    CREATE INDEX topics_by_update ON topics (space, updated_at DESC, id);

    CREATE TABLE topic_versions (
        topic INTEGER NOT NULL REFERENCES topics (number),
        version INTEGER NOT NULL,
        updated_at REAL NOT NULL,
        summary TEXT NOT NULL,
        size INTEGER NOT NULL,
        PRIMARY KEY (topic, version)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE topic_entries (
        topic INTEGER NOT NULL REFERENCES topics (number),
        space INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        version INTEGER NOT NULL,
        event_at REAL NOT NULL,
        PRIMARY KEY (topic, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX topic_entries_by_time ON topic_entries (topic, event_at, seq);
    CREATE INDEX topic_entries_by_version ON topic_entries (topic, version, seq);
    CREATE INDEX topic_entries_by_seq ON topic_entries (space, seq);

    CREATE TABLE facts (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        space INTEGER NOT NULL REFERENCES spaces (number),
        id TEXT NOT NULL,
        entity TEXT NOT NULL,
        attribute TEXT NOT NULL,
        value TEXT NOT NULL,
        valid_from REAL NOT NULL,
        valid_to REAL,
        superseded_by TEXT,
        seq INTEGER NOT NULL,
        source TEXT NOT NULL,
        UNIQUE (space, id)
    ) STRICT;
    CREATE INDEX facts_by_slot ON facts (space, entity, attribute, valid_from, seq);
    CREATE INDEX facts_by_seq ON facts (space, seq);
    CREATE INDEX facts_current ON facts (space, entity, attribute) WHERE superseded_by IS NULL;
    """,
)


def known_version() -> int:
    """The newest schema version that this program can read and write."""
    return len(MIGRATIONS)


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Bring a file to this version, in one transaction.

    Raises:
        StoreCorrupted: the file is a database of something else.
        StoreTooNew: the file is of a later version.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        _migrate(connection, path)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _migrate(connection: sqlite3.Connection, path: str) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != APPLICATION_ID and tables:
        raise StoreCorrupted(
            f"{path} is an SQLite database, but not a memory store of Sternpost: give another path with --store"
        )
    if not tables:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("CREATE TABLE migrations (version INTEGER PRIMARY KEY, applied_at REAL NOT NULL) STRICT")
    (version,) = connection.execute("SELECT coalesce(max(version), 0) FROM migrations").fetchone()
    if version > known_version():
        raise StoreTooNew(
            f"{path} has version {version}, written by a newer Sternpost; this one knows versions up to "
            f"{known_version()}: install the newer Sternpost again, or give another path with --store"
        )
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        # Not executescript(), which would commit before it begins.
        for statement in _statements(script):
            connection.execute(statement)
        connection.execute("INSERT INTO migrations VALUES (?, ?)", (number, time.time()))


def _statements(script: str) -> list[str]:
    statements: list[str] = []
    rest = ""
    for part in script.split(";"):
        rest += part + ";"
        if sqlite3.complete_statement(rest):
            statements.append(rest.strip())
            rest = ""
    return statements
