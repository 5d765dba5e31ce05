"""The Redis store, by the suite that every store has to pass, on a real server."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from memory_store_conformance import Place, StoreConformance
from redis_server import RedisServer

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
