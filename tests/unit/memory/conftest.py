"""What the memory service's tests share."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from memory_store_conformance import drain as _drain
from memory_store_conformance import projection as _projection

from sternpost_memory.consolidation.deterministic import DeterministicEngine
from sternpost_memory.consolidation.policy import Policy
from sternpost_memory.consolidation.worker import Worker
from sternpost_memory.http.app import create_app
from sternpost_memory.http.auth import TokenAuthorizer
from sternpost_memory.http.service import Service
from sternpost_memory.metrics import Metrics
from sternpost_memory.store.base import Store
from sternpost_memory.store.sqlite import SqliteStore

TOKEN = "token-of-space-a"
NOW = 1_800_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "memory.db")
    yield store
    store.close()


class Api:
    """The application without a network, with a clock of its own."""

    def __init__(self, store: Store, token: str | None = TOKEN) -> None:
        self.now = NOW
        self.metrics = Metrics()
        self.worker = Worker(
            store, DeterministicEngine(), policy=Policy(), metrics=self.metrics, clock=lambda: self.now
        )
        service = Service(store=store, worker=self.worker, metrics=self.metrics, clock=lambda: self.now)
        self.app = create_app(
            service, TokenAuthorizer({TOKEN: frozenset({"a"}), "token-of-everything": frozenset({"*"})})
        )
        self.token = token

    def __call__(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        headers |= arguments.pop("headers", {})

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://memory") as client:
                return await client.request(method, path, headers=headers, **arguments)

        return asyncio.run(ask())

    def write(self, *observations: dict[str, Any], key: str | None = None) -> httpx.Response:
        headers = {"Idempotency-Key": key} if key else {}
        return self("POST", "/v1/spaces/a/observations", json={"observations": list(observations)}, headers=headers)


@pytest.fixture
def api(store: SqliteStore) -> Api:
    return Api(store)


class Server:
    """`python -m sternpost_memory serve` as a process of its own."""

    def __init__(self, store: Path, *options: str) -> None:
        self.store = store
        self.options = options
        self.start()

    def start(self, wait: bool = True) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = self.store.parent / f"log-{self.port}"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "sternpost_memory", "serve", "--store", str(self.store),
                    "--port", str(self.port), "--no-auth", *self.options,
                ],
                stderr=log,
                env=dict(os.environ),
            )  # fmt: skip
        self.url = f"http://127.0.0.1:{self.port}"
        if wait:
            self.wait()

    def wait(self, seconds: float = 30) -> None:
        _poll(lambda: self.process.poll() is not None or self.ready(), seconds)
        assert self.process.poll() is None, self.log.read_text()

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", verify=False).status_code == 200  # noqa: S501 - plain HTTP; it saves reading the certificates
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*options: str, store: Path = tmp_path / "memory.db") -> Server:
        servers.append(Server(store, *options))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.kill()


def _poll(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until a condition holds; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.03)


def _problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """The problem that a response must hold."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = json.loads(response.content)
    assert body["status"] == status
    assert body["detail"]
    return body


@pytest.fixture
def projection() -> Callable[[Store, str], dict[str, Any]]:
    return _projection


@pytest.fixture
def drain() -> Callable[..., None]:
    return _drain


@pytest.fixture
def poll() -> Callable[..., None]:
    return _poll


@pytest.fixture
def problem() -> Callable[[httpx.Response, int], dict[str, Any]]:
    return _problem


@pytest.fixture
def make_api() -> Callable[..., Api]:
    return Api
