"""What is in Redis, once more in an SQLite file of this process: every replica reads and searches its own.

The mirror follows Redis: before each read it asks whether something was written and takes in what it lacks. So a read
sees all that was acknowledged to anyone before it began, by whichever replica.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from sternpost_memory.consolidation.engine import Change, TopicChange
from sternpost_memory.errors import StoreBusy, StoreCorrupted, StoreFull, StoreUnavailable
from sternpost_memory.model import Observation
from sternpost_memory.retrieval import fts
from sternpost_memory.store import sqlite_log, sqlite_projection
from sternpost_memory.store.redis_connection import RedisConnection
from sternpost_memory.store.redis_follow import Documents, Place, Seen, documents, look
from sternpost_memory.store.redis_keys import Keys
from sternpost_memory.store.redis_rows import Commit
from sternpost_memory.store.sqlite_connections import Connections

READ_ATTEMPTS = 50
"""Reads that found the mirror in the middle of a longer catching up."""
FRUITLESS_ROUNDS = 3
"""Rounds that brought nothing, while documents are still missing."""

T = TypeVar("T")


@dataclass(slots=True)
class _Followed:
    """How far the mirror has followed a space."""

    place: Place = field(default_factory=Place)
    stamp: str | None = None
    """Of the last write that it has, if it has all up to there."""
    stale: set[str] = field(default_factory=set)
    """Topics whose documents were of a later version already: that version is still to come."""
    lock: threading.Lock = field(default_factory=threading.Lock)


class Mirror:
    """The mirror of all spaces that were read so far. `folder` is its own.

    Raises:
        StoreError: from every method: Redis is away, or the folder cannot be written.
    """

    def __init__(self, redis: RedisConnection, folder: Path) -> None:
        self._redis = redis
        self._path = folder / "mirror.db"
        self._followed: dict[str, _Followed] = {}
        self._lock = threading.Lock()
        with self._local():
            self._connections = Connections(self._path, durable=False)
            with self._connections.write() as connection:
                connection.execute(
                    "CREATE TABLE following (space INTEGER PRIMARY KEY, complete INTEGER NOT NULL) STRICT"
                )

    def close(self) -> None:
        """Close the file."""
        self._connections.close()

    def read(self, space: str, read: Callable[[sqlite3.Connection, int], T], otherwise: T) -> T:
        """What `read` finds in a view of one moment; `otherwise` if nothing was ever written to the space."""
        for _ in range(READ_ATTEMPTS):
            if not self._catch_up(space):
                return otherwise
            with self._local(), self._connections.read() as connection:
                number = sqlite_log.space_number(connection, space)
                if number is not None and _is_complete(connection, number):
                    return read(connection, number)
        raise StoreBusy(f"the index of this replica does not keep up with what is written to {self._redis.name}")

    def _catch_up(self, space: str) -> bool:
        """Take in what the mirror lacks; whether anything was ever written to the space."""
        keys = Keys(self._redis.prefix, space)
        (found,) = self._redis.fields(keys.meta, "stamp")
        stamp = found.decode() if found is not None else None
        with self._lock:
            followed = self._followed.get(space)
            if followed is None:
                if stamp is None:
                    return False
                followed = self._followed[space] = _Followed()
        if stamp is None or followed.stamp != stamp:
            with followed.lock:
                if stamp is None or followed.stamp != stamp:
                    self._follow(keys, followed)
        return stamp is not None

    def _follow(self, keys: Keys, followed: _Followed) -> None:
        fruitless = 0
        commits_too = True
        while True:
            seen = look(self._redis, keys, followed.place, commits_too=commits_too)
            if not seen.continues:
                self._forget(keys.space, followed, seen.generation)
                if seen.stamp is None:
                    return
                continue
            commits_too = not seen.more_log
            complete = self._take_in(keys, followed, seen)
            if complete:
                return
            fruitless = 0 if seen.observations or seen.commits else fruitless + 1
            if fruitless == FRUITLESS_ROUNDS:
                raise StoreCorrupted(
                    f"{self._redis.name} lacks documents of {len(followed.stale)} topics: "
                    "`sternpost-memory rebuild --store …` computes them again"
                )

    def _take_in(self, keys: Keys, followed: _Followed, seen: Seen) -> bool:
        found = documents(self._redis, keys, seen)
        stale = {topic for topic in followed.stale if topic not in found} | {
            topic for topic, document in found.items() if document is None
        }
        complete = seen.at_the_end and not stale
        followed.stamp = None
        with self._local(), self._connections.write() as connection:
            number = sqlite_log.ensure_space(connection, keys.space, seen.created_at)
            _put(connection, number, seen, found)
            connection.execute("INSERT OR REPLACE INTO following VALUES (?, ?)", (number, complete))
        followed.place = seen.place
        followed.stale = stale
        followed.stamp = seen.stamp if complete else None
        return complete

    def _forget(self, space: str, followed: _Followed, generation: str) -> None:
        """Begin anew: the space was rebuilt, or Redis was put back to an earlier state."""
        followed.stamp = None
        with self._local(), self._connections.write() as connection:
            number = sqlite_log.space_number(connection, space)
            if number is not None:
                sqlite_projection.clear(connection, number)
                fts.drop(connection, number)
                for statement in (
                    "DELETE FROM observations WHERE space = ?",
                    "DELETE FROM following WHERE space = ?",
                    "DELETE FROM spaces WHERE number = ?",
                ):
                    connection.execute(statement, (number,))
        followed.place = Place(generation=generation)
        followed.stale = set()

    @contextmanager
    def _local(self) -> Iterator[None]:
        """What goes wrong with the mirror is no loss, and is said otherwise than of a store."""
        try:
            yield
        except StoreFull as error:
            raise StoreUnavailable(
                f"no space left for the search index in {self._path.parent}: give it more, or another folder with --index"
            ) from error
        except StoreCorrupted as error:
            raise StoreUnavailable(
                f"the search index {self._path} is damaged ({error}): restart the service, which makes a new one"
            ) from error


def _is_complete(connection: sqlite3.Connection, number: int) -> bool:
    row = connection.execute("SELECT complete FROM following WHERE space = ?", (number,)).fetchone()
    return row is not None and bool(row[0])


def _put(connection: sqlite3.Connection, number: int, seen: Seen, found: Documents) -> None:
    sqlite_log.put(connection, number, ((item.seq, item.received_at, item) for item in seen.observations))
    for commit in seen.commits:
        added = sqlite_log.observations(connection, number, first=commit.base_seq + 1, last=commit.last_seq)
        sqlite_projection.apply(connection, number, _change(commit, added, found))
    connection.execute(
        "UPDATE spaces SET last_seq = ?, consolidated_seq = ? WHERE number = ?",
        (seen.place.last_seq, seen.place.consolidated_seq, number),
    )


def _change(commit: Commit, observations: Sequence[Observation], found: Documents) -> Change:
    by_seq = {item.seq: item for item in observations}
    topics = []
    for header in commit.topics:
        topic = header.topic
        known = found.get(topic.id)
        if known is not None and known[0] == topic.version:
            topic = topic.model_copy(update={"document": known[1], "profile": known[2]})
        topics.append(
            TopicChange(base_version=header.base_version, topic=topic, added=[by_seq[seq] for seq in header.added])
        )
    return Change(
        space="",
        base_seq=commit.base_seq,
        last_seq=commit.last_seq,
        engine=commit.engine,
        topics=topics,
        facts=commit.facts,
    )
