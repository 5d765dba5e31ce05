"""The log in SQLite: spaces, observations, jobs."""

from __future__ import annotations

import hmac
import sqlite3
import uuid
from collections.abc import Iterable, Sequence

from sternpost_memory.consolidation.engine import Batch
from sternpost_memory.errors import KeyReused
from sternpost_memory.model import Job, JobKind, NewObservation, Observation
from sternpost_memory.retrieval import fts
from sternpost_memory.store.base import Appended, Buffer, CandidateKind
from sternpost_memory.store.sqlite_rows import OBSERVATION, job_from, observation_from, observation_row


def space_number(connection: sqlite3.Connection, space: str) -> int | None:
    """The number by which a space's rows are found."""
    row = connection.execute("SELECT number FROM spaces WHERE name = ?", (space,)).fetchone()
    return row[0] if row else None


def space_seqs(connection: sqlite3.Connection, space: str) -> tuple[int, int]:
    """The last sequence number, and the last that is consolidated."""
    row = connection.execute("SELECT last_seq, consolidated_seq FROM spaces WHERE name = ?", (space,)).fetchone()
    return (row[0], row[1]) if row else (0, 0)


def ensure_space(connection: sqlite3.Connection, space: str, now: float) -> int:
    """The number of a space, which is made if it is not there."""
    if (known := space_number(connection, space)) is not None:
        return known
    number: int
    (number,) = connection.execute(
        "INSERT INTO spaces (name, last_seq, consolidated_seq, buffer_bytes, created_at) VALUES (?, 0, 0, 0, ?) "
        "RETURNING number",
        (space, now),
    ).fetchone()
    fts.create(connection, number)
    return number


def append(
    connection: sqlite3.Connection,
    space: str,
    observations: Sequence[NewObservation],
    *,
    now: float,
    idempotency_key: str | None,
    request_hash: bytes,
) -> Appended:
    """See `Store.append`; within a transaction."""
    number = ensure_space(connection, space, now)
    if idempotency_key is not None and (earlier := _replayed(connection, number, idempotency_key, request_hash)):
        return earlier
    (last_seq,) = connection.execute("SELECT last_seq FROM spaces WHERE number = ?", (number,)).fetchone()
    seqs = range(last_seq + 1, last_seq + 1 + len(observations))
    put(connection, number, ((seq, now, new) for seq, new in zip(seqs, observations, strict=True)))
    connection.execute(
        "UPDATE spaces SET last_seq = ?, buffer_bytes = buffer_bytes + ? WHERE number = ?",
        (seqs[-1], sum(len(new.text.encode()) for new in observations), number),
    )
    job = uuid.uuid4().hex
    connection.execute(
        "INSERT INTO jobs (id, space, kind, first_seq, last_seq, created_at, idempotency_key, request_hash) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (job, number, JobKind.INGEST, seqs[0], seqs[-1], now, idempotency_key, request_hash),
    )
    return Appended(job=job, seqs=seqs)


def put(connection: sqlite3.Connection, number: int, entries: Iterable[tuple[int, float, NewObservation]]) -> None:
    """Add observations (seq, time of arrival, observation) to the log and to the search index; within a transaction."""
    entries = list(entries)
    connection.executemany(
        "INSERT INTO observations (space, seq, received_at, text, occurred_at, source, entities, attributes) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        ((number, seq, received_at, *observation_row(new)) for seq, received_at, new in entries),
    )
    fts.put(
        connection,
        number,
        CandidateKind.OBSERVATION,
        ((seq, fts.observation_words(new)) for seq, _, new in entries),
    )


def _replayed(connection: sqlite3.Connection, number: int, key: str, request_hash: bytes) -> Appended | None:
    row = connection.execute(
        "SELECT id, first_seq, last_seq, request_hash FROM jobs WHERE space = ? AND idempotency_key = ?", (number, key)
    ).fetchone()
    if row is None:
        return None
    job, first_seq, last_seq, earlier_hash = row
    if not hmac.compare_digest(earlier_hash, request_hash):
        raise KeyReused(
            "this Idempotency-Key was used for another request in this space: use a new key for a new request"
        )
    return Appended(job=job, seqs=range(first_seq, last_seq + 1), replayed=True)


def request_consolidation(connection: sqlite3.Connection, space: str, now: float) -> Job:
    """See `Store.request_consolidation`; within a transaction."""
    number = ensure_space(connection, space, now)
    last_seq, consolidated_seq = space_seqs(connection, space)
    row = (uuid.uuid4().hex, space, JobKind.CONSOLIDATION, now, min(consolidated_seq + 1, last_seq), last_seq)
    job = job_from(row, consolidated_seq)
    connection.execute(
        "INSERT INTO jobs (id, space, kind, first_seq, last_seq, created_at) VALUES (?, ?, ?, ?, ?, ?)",
        (job.id, number, job.kind, job.first_seq, job.last_seq, job.created_at),
    )
    return job


def job(connection: sqlite3.Connection, job_id: str) -> Job | None:
    """See `Store.job`."""
    row = connection.execute(
        "SELECT j.id, s.name, j.kind, j.created_at, j.first_seq, j.last_seq, s.consolidated_seq "
        "FROM jobs j JOIN spaces s ON s.number = j.space WHERE j.id = ?",
        (job_id,),
    ).fetchone()
    return job_from(row[:-1], row[-1]) if row else None


def observations(connection: sqlite3.Connection, number: int, *, first: int, last: int) -> list[Observation]:
    """The log from `first` to `last`, both included."""
    rows = connection.execute(
        f"SELECT {OBSERVATION} FROM observations o WHERE space = ? AND seq BETWEEN ? AND ? ORDER BY seq",  # noqa: S608
        (number, first, last),
    )
    return [observation_from(row) for row in rows]


def buffers(connection: sqlite3.Connection) -> list[Buffer]:
    """See `Store.buffers`."""
    rows = connection.execute(
        "SELECT s.name, s.last_seq - s.consolidated_seq, s.buffer_bytes, o.received_at FROM spaces s "
        "JOIN observations o ON o.space = s.number AND o.seq = s.consolidated_seq + 1 "
        "WHERE s.last_seq > s.consolidated_seq ORDER BY o.received_at, s.number"
    )
    return [Buffer(space=name, count=count, size=size, oldest_at=at) for name, count, size, at in rows]


def batch(connection: sqlite3.Connection, space: str, limit: int) -> Batch:
    """See `Store.batch`."""
    number = space_number(connection, space)
    if number is None:
        return Batch(space=space, base_seq=0, observations=())
    last_seq, consolidated_seq = space_seqs(connection, space)
    last = min(last_seq, consolidated_seq + limit)
    return Batch(
        space=space,
        base_seq=consolidated_seq,
        observations=observations(connection, number, first=consolidated_seq + 1, last=last),
    )
