"""What the tests of the memory service on a real Redis share."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest
from redis_server import RedisServer

from sternpost_memory.store.redis import RedisStore


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """One server for tests that do not disturb it; each has a prefix of its own."""
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def new_redis() -> Iterator[Callable[..., RedisServer]]:
    """Servers that a test may kill."""
    servers: list[RedisServer] = []

    def start(*options: str) -> RedisServer:
        server = RedisServer(*options)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def open_store() -> Iterator[Callable[..., RedisStore]]:
    stores: list[RedisStore] = []

    def open_(server: RedisServer, prefix: str = "", **options: object) -> RedisStore:
        store = RedisStore(server.url, prefix=prefix or uuid.uuid4().hex, **options)  # type: ignore[arg-type]
        stores.append(store)
        return store

    yield open_
    for store in stores:
        store.close()
