"""The store of several replicas: log, documents and facts in Redis, an index of its own in each replica."""

from __future__ import annotations

import re
import sqlite3
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import redis

from sternpost_memory.consolidation.engine import Batch, Change, Engine
from sternpost_memory.errors import KeyReused
from sternpost_memory.limits import MIB
from sternpost_memory.model import Job, NewObservation, Observation
from sternpost_memory.store import redis_commit, redis_rebuild
from sternpost_memory.store.base import Appended, Buffer
from sternpost_memory.store.redis_connection import RedisConnection
from sternpost_memory.store.redis_keys import Keys, spaces_key
from sternpost_memory.store.redis_mirror import Mirror
from sternpost_memory.store.redis_rows import Entry, job_from, mark, observation_from, observation_line
from sternpost_memory.store.scratch import ScratchFolder
from sternpost_memory.store.sqlite_queries import SqliteQueries

PREFIX = "sternpost-memory"
"""What all keys begin with."""
READ_CHUNK = 64
SPACES_CHUNK = 500
BATCH_BYTES = 4 * MIB
"""JSON of one consolidation's observations, so that it fits into one script."""
BATCH_TOPICS = 256
"""Topics of one consolidation."""

JOB = re.compile(r"[0-9a-f]{32}\.(?P<space>[A-Za-z0-9._-]+)", re.ASCII)

T = TypeVar("T")


class RedisStore(SqliteQueries):
    """See `Store`. `index` is the folder for the local index; a temporary one if not given.

    Raises:
        SettingsError: the URL is none of Redis.
        StoreError: the folder cannot be used. That Redis is away is told by each call, for it may come back.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = PREFIX,
        password: str | None = None,
        password_file: Path | None = None,
        index: Path | None = None,
    ) -> None:
        self._connection = RedisConnection(url, prefix=prefix, password=password, password_file=password_file)
        self._folder = ScratchFolder(index)
        self._mirror = Mirror(self._connection, self._folder.path)

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
        keys = self._keys(space)
        job = _new_job(space)
        sizes = [len(new.text.encode()) for new in observations]
        self._register(space)
        answer = self._connection.call(
            "append",
            [keys.meta, keys.log, keys.jobs, keys.requests],
            [
                job, repr(float(now)), mark(job), idempotency_key or "", request_hash.hex() or "-", str(sizes),
                *map(observation_line, observations),
            ],
        )  # fmt: skip
        match answer:
            case [b"written" | b"job", first, last]:
                return Appended(job=job, seqs=range(int(first), int(last) + 1))
            case [b"key", earlier, first, last]:
                return Appended(job=earlier.decode(), seqs=range(int(first), int(last) + 1), replayed=True)
            case _:
                raise KeyReused(
                    "this Idempotency-Key was used for another request in this space: use a new key for a new request"
                )

    def request_consolidation(self, space: str, *, now: float) -> Job:
        """See `Store.request_consolidation`."""
        keys = self._keys(space)
        job = _new_job(space)
        self._register(space)
        first, last, consolidated = self._connection.call("request", [keys.meta, keys.jobs], [job, repr(float(now))])
        line = b"consolidation %b %b %b" % (first, last, repr(float(now)).encode())
        return job_from(job, space, line, int(consolidated))

    def job(self, job_id: str) -> Job | None:
        """See `Store.job`."""
        if not (named := JOB.fullmatch(job_id)):
            return None
        space = named["space"]
        keys = self._keys(space)

        (line,) = self._connection.fields(keys.jobs, job_id)
        (consolidated,) = self._connection.fields(keys.meta, "consolidated")
        return job_from(job_id, space, line, int(consolidated or 0)) if line is not None else None

    def last_seq(self, space: str) -> int:
        """See `Store.last_seq`."""
        return self._seqs(space)[0]

    def observations(self, space: str, *, after: int, limit: int) -> list[Observation]:
        """See `Store.observations`."""
        return [observation_from(entry) for entry in self._log(space, after, limit)]

    def buffers(self) -> list[Buffer]:
        """See `Store.buffers`."""
        spaces = self._registered()
        waiting: list[tuple[str, int, int, int]] = []
        for first in range(0, len(spaces), SPACES_CHUNK):
            part = spaces[first : first + SPACES_CHUNK]
            for space, state in zip(part, self._states(part), strict=True):
                last, consolidated, size, consumed = (int(value or 0) for value in state)
                if last > consolidated:
                    waiting.append((space, consolidated + 1, last - consolidated, size - consumed))

        def oldest(client: redis.Redis) -> list[list[Entry]]:
            pipeline = client.pipeline(transaction=False)
            for space, seq, _, _ in waiting:
                pipeline.xrange(self._keys(space).log, min=f"{seq}-0", max=f"{seq}-0")
            found: list[list[Entry]] = pipeline.execute()
            return found

        if not waiting:
            return []
        buffers = [
            Buffer(space=space, count=count, size=size, oldest_at=observation_from(entries[0]).received_at)
            for (space, _, count, size), entries in zip(waiting, self._connection.use(oldest), strict=True)
        ]
        return sorted(buffers, key=lambda buffer: buffer.oldest_at)

    def batch(self, space: str, *, limit: int) -> Batch:
        """See `Store.batch`; fewer than `limit` where they would not fit into one script."""
        _, consolidated = self._seqs(space)
        chosen: list[Observation] = []
        size = 0
        topics: set[str] = set()
        while len(chosen) < limit:
            entries = self._log(space, consolidated + len(chosen), min(READ_CHUNK, limit - len(chosen)))
            if not entries:
                break
            for entry in entries:
                observation = observation_from(entry)
                size += len(entry[1][b"o"])
                topics.update(observation.entities)
                if chosen and (size > BATCH_BYTES or len(topics) > BATCH_TOPICS):
                    return Batch(space=space, base_seq=consolidated, observations=chosen)
                chosen.append(observation)
        return Batch(space=space, base_seq=consolidated, observations=chosen)

    def commit(self, change: Change, *, now: float) -> None:
        """See `Store.commit`."""
        redis_commit.commit(self._connection, self._keys(change.space), change, now)

    def rebuild(self, space: str, engine: Engine) -> None:
        """See `Store.rebuild`."""
        redis_rebuild.rebuild(self._connection, self._keys(space), engine, self._folder.path)

    def spaces(self) -> list[str]:
        """See `Store.spaces`."""
        registered = self._registered()

        def exist(client: redis.Redis) -> list[int]:
            pipeline = client.pipeline(transaction=False)
            for space in registered:
                pipeline.exists(self._keys(space).meta)
            found: list[int] = pipeline.execute()
            return found

        return [space for space, there in zip(registered, self._connection.use(exist), strict=True) if there]

    def check(self) -> None:
        """See `Store.check`."""
        self._connection.ping()

    def close(self) -> None:
        """See `Store.close`."""
        self._connection.close()
        self._mirror.close()
        self._folder.close()

    def _in_space(self, space: str, read: Callable[[sqlite3.Connection, int], T], otherwise: T) -> T:
        return self._mirror.read(space, read, otherwise)

    def _keys(self, space: str) -> Keys:
        return Keys(self._connection.prefix, space)

    def _register(self, space: str) -> None:
        # Before the first write: a name without a space is passed over, a space without a name would be forgotten.
        self._connection.use(lambda client: client.sadd(spaces_key(self._connection.prefix), space))

    def _registered(self) -> list[str]:
        found = self._connection.use(lambda client: client.smembers(spaces_key(self._connection.prefix)))
        return sorted(name if isinstance(name, str) else name.decode() for name in found)

    def _seqs(self, space: str) -> tuple[int, int]:
        """The last sequence number, and the last that is consolidated."""
        last, consolidated = self._connection.fields(self._keys(space).meta, "last", "consolidated")
        return int(last or 0), int(consolidated or 0)

    def _states(self, spaces: Sequence[str]) -> list[list[bytes | None]]:
        def read(client: redis.Redis) -> list[list[bytes | None]]:
            pipeline = client.pipeline(transaction=False)
            for space in spaces:
                pipeline.hmget(self._keys(space).meta, ["last", "consolidated", "bytes", "consumed"])
            found: list[list[bytes | None]] = pipeline.execute()
            return found

        return self._connection.use(read)

    def _log(self, space: str, after: int, limit: int) -> list[Entry]:
        return self._connection.entries(self._keys(space).log, after + 1, after + limit)


def _new_job(space: str) -> str:
    # The space stands in the job's name: that is where it is looked for.
    return f"{uuid.uuid4().hex}.{space}"
