"""The embedded store: one SQLite file, which several threads and processes may use at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from sternpost_memory.consolidation.engine import Batch, Change, Engine
from sternpost_memory.model import Job, NewObservation, Observation
from sternpost_memory.store import sqlite_log, sqlite_projection
from sternpost_memory.store.base import Appended, Buffer
from sternpost_memory.store.sqlite_connections import Connections
from sternpost_memory.store.sqlite_queries import SqliteQueries

T = TypeVar("T")


class SqliteStore(SqliteQueries):
    """See `Store`. `max_bytes` bounds the file, so that it cannot take the whole disk.

    Raises:
        StoreError: the file cannot be used; the message says why and what to do.
    """

    def __init__(self, path: Path, *, max_bytes: int | None = None) -> None:
        self._connections = Connections(path, max_bytes=max_bytes)

    def append(
        self,
        space: str,
        observations: Sequence[NewObservation],
        *,
        now: float,
        idempotency_key: str | None = None,
        request_hash: bytes = b"",
    ) -> Appended:
        """See `Store.append`."""
        if not observations:
            raise ValueError("a batch has at least one observation")
        with self._connections.write() as connection:
            return sqlite_log.append(
                connection,
                space,
                observations,
                now=now,
                idempotency_key=idempotency_key,
                request_hash=request_hash,
            )

    def request_consolidation(self, space: str, *, now: float) -> Job:
        """See `Store.request_consolidation`."""
        with self._connections.write() as connection:
            return sqlite_log.request_consolidation(connection, space, now)

    def job(self, job_id: str) -> Job | None:
        """See `Store.job`."""
        with self._connections.read() as connection:
            return sqlite_log.job(connection, job_id)

    def last_seq(self, space: str) -> int:
        """See `Store.last_seq`."""
        with self._connections.read() as connection:
            return sqlite_log.space_seqs(connection, space)[0]

    def observations(self, space: str, *, after: int, limit: int) -> list[Observation]:
        """See `Store.observations`."""
        return self._in_space(
            space,
            lambda connection, number: sqlite_log.observations(connection, number, first=after + 1, last=after + limit),
            [],
        )

    def buffers(self) -> list[Buffer]:
        """See `Store.buffers`."""
        with self._connections.read() as connection:
            return sqlite_log.buffers(connection)

    def batch(self, space: str, *, limit: int) -> Batch:
        """See `Store.batch`."""
        with self._connections.read() as connection:
            return sqlite_log.batch(connection, space, limit)

    def commit(self, change: Change, *, now: float) -> None:
        """See `Store.commit`."""
        with self._connections.write() as connection:
            sqlite_projection.commit(connection, change, now)

    def rebuild(self, space: str, engine: Engine) -> None:
        """See `Store.rebuild`."""
        with self._connections.write() as connection:
            sqlite_projection.rebuild(connection, space, engine)

    def spaces(self) -> list[str]:
        """See `Store.spaces`."""
        with self._connections.read() as connection:
            return [name for (name,) in connection.execute("SELECT name FROM spaces ORDER BY name")]

    def check(self) -> None:
        """See `Store.check`."""
        with self._connections.read() as connection:
            connection.execute("SELECT count(*) FROM migrations").fetchone()

    def close(self) -> None:
        """See `Store.close`."""
        self._connections.close()

    def _in_space(self, space: str, read: Callable[[sqlite3.Connection, int], T], otherwise: T) -> T:
        with self._connections.read() as connection:
            number = sqlite_log.space_number(connection, space)
            return otherwise if number is None else read(connection, number)
