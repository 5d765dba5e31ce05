"""The Redis store, by the suite that every store has to pass, on a real server."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
import redis
from memory_store_conformance import Place, StoreConformance, drain, planned, projection
from redis_server import RedisServer

from sternpost_memory.consolidation.deterministic import DeterministicEngine
from sternpost_memory.consolidation.engine import Base, Change, Routes
from sternpost_memory.errors import StoreConflict
from sternpost_memory.model import NewObservation
from sternpost_memory.store import redis as redis_store
from sternpost_memory.store import redis_commit, redis_follow
from sternpost_memory.store.base import Store
from sternpost_memory.store.redis import RedisStore


class RedisPlace:
    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.prefix = uuid.uuid4().hex

    def open(self) -> RedisStore:
        return RedisStore(self.server.url, prefix=self.prefix)

    def damage(self, store: Store, space: str) -> None:
        assert isinstance(store, RedisStore)
        _, versions, documents = store._keys(space).projection("0")
        for number, topic in enumerate(store.topics(space, after="", limit=100)):
            store._connection.use(lambda client, topic=topic: client.hset(documents, topic.id, b"nonsense"))  # type: ignore[misc]
            if number % 2:
                store._connection.use(lambda client, topic=topic: client.hdel(versions, topic.id))  # type: ignore[misc]

    def close(self) -> None:
        store = self.open()
        found = store._connection.use(lambda client: list(client.scan_iter(match=f"{self.prefix}:*", count=1000)))
        if found:
            store._connection.use(lambda client: client.unlink(*found))
        store.close()


class TestRedisStore(StoreConformance):
    @pytest.fixture
    def new_place(self, shared_redis: RedisServer) -> Callable[[], Place]:
        return lambda: RedisPlace(shared_redis)


class TestRedisStoreInSmallPieces(TestRedisStore):
    """A mirror that takes in two observations, one consolidation and one document at a time, as it does with large spaces."""

    examples = 10

    @pytest.fixture(autouse=True)
    def small_pieces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(redis_follow, "LOG_CHUNK", 2)
        monkeypatch.setattr(redis_follow, "COMMIT_CHUNK", 1)
        monkeypatch.setattr(redis_follow, "DOCUMENT_CHUNK", 1)
        monkeypatch.setattr(redis_commit, "PIECE_BYTES", 1)
        monkeypatch.setattr(redis_store, "READ_CHUNK", 1)


class Interrupted(DeterministicEngine):
    """An engine that has something else happen, once, while it computes."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self._meanwhile: list[Callable[[], None]] = [meanwhile]

    def consolidate(self, base: Base, routes: Routes) -> Change:
        if self._meanwhile:
            self._meanwhile.pop()()
        return super().consolidate(base, routes)


EVENTS = [NewObservation(text=f"event {n}", entities=[f"node/{n % 2}"], attributes={"n": n}) for n in range(6)]


def test_what_is_consolidated_during_a_rebuild_is_in_it(
    shared_redis: RedisServer, open_store: Callable[..., RedisStore]
) -> None:
    store = open_store(shared_redis, "rebuilt-1")
    other = open_store(shared_redis, "rebuilt-1")
    store.append("a", EVENTS, now=1.0)
    drain(store, "a", limit=2)

    def more() -> None:
        other.append("a", EVENTS, now=2.0)
        drain(other, "a", limit=4)

    store.rebuild("a", Interrupted(more))
    found = projection(store, "a")
    assert sum(topic.sources for topic in found["topics"]) == 12
    assert projection(other, "a") == found
    store.rebuild("a", DeterministicEngine())
    assert projection(other, "a") == found


def test_two_rebuilds_at_once(shared_redis: RedisServer, open_store: Callable[..., RedisStore]) -> None:
    store = open_store(shared_redis, "rebuilt-2")
    other = open_store(shared_redis, "rebuilt-2")
    store.append("a", EVENTS, now=1.0)
    drain(store, "a", limit=2)
    before = projection(store, "a")
    store.rebuild("a", Interrupted(lambda: other.rebuild("a", DeterministicEngine())))
    assert projection(store, "a") == before
    assert projection(other, "a") == before
    # Of all generations one is left, and what was never put in its place goes away by itself.
    with redis.Redis(unix_socket_path=str(shared_redis.socket)) as client:
        commits = list(client.scan_iter(match="rebuilt-2:{a}:commits:*"))
        kept = [key for key in commits if client.ttl(key) == -1]
        assert len(kept) == 1
        assert all(client.ttl(key) > 0 for key in commits if key not in kept)


def test_a_consolidation_planned_before_a_rebuild_is_planned_again(
    shared_redis: RedisServer, open_store: Callable[..., RedisStore]
) -> None:
    store = open_store(shared_redis, "rebuilt-3")
    store.append("a", EVENTS, now=1.0)
    drain(store, "a", limit=3)
    store.append("a", EVENTS, now=2.0)
    change = planned(store, "a")
    store.rebuild("a", DeterministicEngine())
    # The rebuild gives the same, so that what was planned on it still fits.
    store.commit(change, now=3.0)
    with pytest.raises(StoreConflict, match="plan again"):
        store.commit(change, now=3.0)
    assert sum(topic.sources for topic in store.topics("a", after="", limit=9)) == 12
