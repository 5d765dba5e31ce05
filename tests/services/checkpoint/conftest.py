"""A real S3 server for the checkpoint stores, alone or behind a proxy that makes trouble."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest
from s3_faults import FaultyProxy
from versitygw import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server

from sternpost_checkpoint.store import uri as store_uri
from sternpost_checkpoint.store.base import Store
from sternpost_checkpoint.store.uri import open_store


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """One server; each test has a prefix of its own."""
    server = S3Server()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[FaultyProxy]:
    made = FaultyProxy(s3.port)
    yield made
    made.close()


@pytest.fixture
def s3_environment(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, str]]:
    """Give this process the credentials, and an endpoint."""

    def give(endpoint: str) -> dict[str, str]:
        variables = {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ALLOW_HTTP": "true",
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return variables

    return give


@pytest.fixture
def store(s3: S3Server, s3_environment: Callable[[str], dict[str, str]]) -> Store:
    s3_environment(s3.endpoint)
    return open_store(f"s3://{BUCKET}/{uuid.uuid4().hex}")


@pytest.fixture
def troubled_store(
    proxy: FaultyProxy, s3_environment: Callable[[str], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> Store:
    """Behind the proxy, and with few retries."""
    s3_environment(proxy.endpoint)
    monkeypatch.setattr(store_uri, "RETRIES", 4)
    return open_store(f"s3://{BUCKET}/{uuid.uuid4().hex}")
