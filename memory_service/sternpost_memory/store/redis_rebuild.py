"""Compute topics and facts of a space in Redis again: beside what is read meanwhile, then put in its place at once."""

from __future__ import annotations

import uuid
from pathlib import Path

import redis

from sternpost_memory.consolidation.engine import Batch, Change, Engine
from sternpost_memory.errors import StoreConflict
from sternpost_memory.store import sqlite_log, sqlite_projection
from sternpost_memory.store.redis_commit import put_documents
from sternpost_memory.store.redis_connection import RedisConnection
from sternpost_memory.store.redis_follow import FIRST_GENERATION
from sternpost_memory.store.redis_keys import Keys
from sternpost_memory.store.redis_rows import Commit, commit_entry, commit_from, mark, observation_from
from sternpost_memory.store.sqlite_connections import Connections

ATTEMPTS = 3
KEPT_SECONDS = 3600
"""What was computed and not put in its place, by a process that died, goes away after so long."""


def rebuild(connection: RedisConnection, keys: Keys, engine: Engine, folder: Path) -> None:
    """See `Store.rebuild`. Consolidations go on meanwhile and are computed again, too.

    Raises:
        StoreConflict: others rebuilt the space at the same time, again and again.
    """
    for attempt in range(1, ATTEMPTS + 1):
        path = folder / f"rebuild-{uuid.uuid4().hex}.db"
        try:
            _Rebuild(connection, keys, engine, path).run()
        except StoreConflict:
            if attempt == ATTEMPTS:
                raise
        else:
            return
        finally:
            for file in path.parent.glob(f"{path.name}*"):
                file.unlink()


class _Rebuild:
    def __init__(self, connection: RedisConnection, keys: Keys, engine: Engine, path: Path) -> None:
        self._connection = connection
        self._keys = keys
        self._engine = engine
        self._path = path
        self._generation = uuid.uuid4().hex

    def run(self) -> None:
        created, generation = self._connection.fields(self._keys.meta, "created", "generation")
        if created is None:
            return
        old = generation.decode() if generation is not None else FIRST_GENERATION
        scratch = Connections(self._path, durable=False)
        try:
            commits, covered = 0, 0
            while True:
                while (recorded := self._recorded(old, commits)) is not None:
                    self._compute(scratch, recorded)
                    commits, covered = recorded.number, recorded.last_seq
                if self._put_in_place(old, commits, covered):
                    return
        finally:
            scratch.close()

    def _recorded(self, generation: str, after: int) -> Commit | None:
        entries = self._connection.entries(self._keys.commits(generation), after + 1, after + 1)
        return commit_from(entries[0]) if entries else None

    def _compute(self, scratch: Connections, recorded: Commit) -> None:
        entries = self._connection.entries(self._keys.log, recorded.base_seq + 1, recorded.last_seq)
        observations = [observation_from(entry) for entry in entries]
        batch = Batch(space=self._keys.space, base_seq=recorded.base_seq, observations=observations)
        with scratch.write() as connection:
            number = sqlite_log.ensure_space(connection, self._keys.space, recorded.at)
            sqlite_log.put(connection, number, ((item.seq, item.received_at, item) for item in observations))
            change = sqlite_projection.computed(connection, number, batch, self._engine)
            sqlite_projection.apply(connection, number, change)
        self._publish(recorded, change)

    def _publish(self, recorded: Commit, change: Change) -> None:
        commits, versions, documents = self._keys.projection(self._generation)
        put_documents(self._connection, documents, change, seconds=KEPT_SECONDS)

        def put_versions(client: redis.Redis) -> None:
            client.hset(versions, mapping={item.topic.id: item.topic.version for item in change.topics})

        if change.topics:
            self._connection.use(put_versions)
        self._connection.call(
            "publish",
            [commits, versions, documents],
            [recorded.number, commit_entry(change, recorded.at), mark(uuid.uuid4().hex), KEPT_SECONDS],
        )

    def _put_in_place(self, old: str, commits: int, covered: int) -> bool:
        """Whether it is in place; if not, there are more consolidations to compute."""
        (answer,) = self._connection.call(
            "switch",
            [self._keys.meta, *self._keys.projection(old), *self._keys.projection(self._generation)],
            [old, self._generation, covered, commits],
        )
        if answer in {b"done", b"again"}:
            return True
        if answer == b"behind":
            return False
        raise StoreConflict(f"space {self._keys.space} was rebuilt by another process at the same time: try again")
