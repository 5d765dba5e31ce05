"""A Redis that is away, full, locked, badly set up or put back to an earlier state."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import redis
import structlog.testing
from memory_server import MemoryServer
from memory_store_conformance import drain, projection
from redis_server import RedisServer

from sternpost_memory.errors import StoreFull, StoreTooNew, StoreUnavailable
from sternpost_memory.model import NewObservation
from sternpost_memory.store import redis as redis_store
from sternpost_memory.store import redis_connection
from sternpost_memory.store.redis import RedisStore

Open = Callable[..., RedisStore]
New = Callable[..., RedisServer]


def some(count: int, size: int = 10) -> list[NewObservation]:
    return [NewObservation(text=f"{n} " + "x" * size, entities=[f"node/{n % 3}"]) for n in range(count)]


def client_of(server: RedisServer) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(server.socket))


def test_what_redis_has_to_be(new_redis: New, open_store: Open) -> None:
    for option, message in [
        ("appendonly no", "append-only file is off"),
        ("appendfsync everysec", "`appendfsync` is `everysec`"),
        ("maxmemory 100mb\nmaxmemory-policy allkeys-lru", "throws data away"),
        ('rename-command CONFIG ""', "does not tell its `appendfsync`"),
    ]:
        with structlog.testing.capture_logs() as logged:
            open_store(new_redis(option)).check()
        assert [message in line["why"] for line in logged] == [True], (option, logged)
    with structlog.testing.capture_logs() as logged:
        open_store(new_redis("maxmemory 100mb")).check()
    assert logged == []


def test_data_of_a_newer_version(shared_redis: RedisServer, open_store: Open) -> None:
    prefix = uuid.uuid4().hex
    with client_of(shared_redis) as client:
        client.set(f"{prefix}:format", 99)
    with pytest.raises(StoreTooNew, match=r"format 99.*install the newer"):
        open_store(shared_redis, prefix).check()


def test_passwords(tmp_path: Path, new_redis: New, open_store: Open) -> None:
    server = new_redis("requirepass first")
    for options in ({}, {"password": "hunter2"}):
        with pytest.raises(StoreUnavailable, match=r"--redis-password-file") as caught:
            open_store(server, **options).check()
        assert "hunter2" not in str(caught.value)
    open_store(server, password="first").check()
    file = tmp_path / "password"
    file.write_text("first\n")
    store = open_store(server, password_file=file)
    store.check()
    # A new password takes no restart, only a new connection.
    with redis.Redis(unix_socket_path=str(server.socket), password="first") as client:
        client.config_set("requirepass", "second")
        client.client_kill_filter(_type="normal", skipme=True)
    file.write_text("second")
    store.check()
    file.unlink()
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        open_store(server, password_file=file).check()


def test_a_full_redis_keeps_all_and_goes_on_when_there_is_space(new_redis: New, open_store: Open) -> None:
    server = new_redis("maxmemory 8mb", "maxmemory-policy noeviction")
    store = open_store(server)
    kept = 0
    with pytest.raises(StoreFull, match="no memory left"):  # noqa: PT012 - it takes some writes to fill it
        while True:
            store.append("a", some(20, 2000), now=1.0, idempotency_key=f"k{kept}", request_hash=b"x")
            kept += 20
    assert kept >= 100
    assert store.last_seq("a") == kept
    assert store.search("a", ["19"], limit=9).seq == kept
    with pytest.raises(StoreFull):
        drain(store, "a")
    assert store.buffers()[0].count == kept
    with client_of(server) as client:
        client.config_set("maxmemory", "200mb")
    again = store.append("a", some(20, 2000), now=2.0, idempotency_key=f"k{kept}", request_hash=b"x")
    assert list(again.seqs) == list(range(kept + 1, kept + 21))
    drain(store, "a")
    assert sum(topic.sources for topic in store.topics("a", after="", limit=9)) == kept + 20


def test_a_redis_that_hangs_is_asked_seldom(new_redis: New, open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_connection, "ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(redis_connection, "CONNECT_SECONDS", 0.1)
    now = 0.0
    monkeypatch.setattr(redis_connection, "monotonic", lambda: now)
    server = new_redis()
    store = open_store(server)
    store.append("a", some(1), now=1.0)
    server.pause()
    with pytest.raises(StoreUnavailable, match="does not answer"):
        store.append("a", some(1), now=1.0, idempotency_key="k", request_hash=b"x")
    with pytest.raises(StoreUnavailable, match="did not answer a moment ago"):
        store.last_seq("a")
    server.resume()
    now = 1.0
    # It may have done what it was asked, and asked again, while nobody heard it.
    done = store.append("a", some(1), now=1.0, idempotency_key="k", request_hash=b"x")
    assert list(done.seqs) == [2]
    assert store.last_seq("a") == 2


def test_a_write_whose_answer_is_lost_is_written_once(
    new_redis: New, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an idempotency key, too: the connection sends it again by itself."""
    store = open_store(new_redis())
    store.append("a", some(1), now=1.0)
    lost = 0
    read = redis.connection.AbstractConnection.read_response

    def read_response(self: redis.connection.AbstractConnection, *arguments: object, **named: object) -> object:
        nonlocal lost
        answer = read(self, *arguments, **named)
        if isinstance(answer, list) and answer and answer[0] in (b"written", b"done") and lost < 1:
            lost += 1
            self.disconnect()
            raise redis.exceptions.ConnectionError("the answer is lost")
        return answer

    monkeypatch.setattr(redis.connection.AbstractConnection, "read_response", read_response)
    done = store.append("a", some(2), now=1.0)
    assert lost == 1
    assert (list(done.seqs), done.replayed) == ([2, 3], False)
    assert store.last_seq("a") == 3
    lost = 0
    drain(store, "a")
    assert lost == 1
    assert {topic.version for topic in store.topics("a", after="", limit=9)} == {1}


def test_a_redis_that_was_put_back_is_followed_from_the_start(new_redis: New, open_store: Open) -> None:
    """What was not fsynced is gone after a power cut, and its numbers are given again: a mirror must not mix the two."""
    server = new_redis()
    store = open_store(server, "p")
    store.append("a", some(3), now=1.0)
    drain(store, "a")
    before = projection(store, "a")
    server.kill()
    saved = server.folder.parent / f"{server.folder.name}-saved"
    shutil.copytree(server.folder / "appendonlydir", saved)
    server.start()
    store.append("a", [NewObservation(text="lost", entities=["node/0"])], now=2.0)
    drain(store, "a")
    assert projection(store, "a") != before
    assert len(store.search("a", ["lost"], limit=9).candidates) > 0
    server.kill()
    shutil.rmtree(server.folder / "appendonlydir")
    saved.rename(server.folder / "appendonlydir")
    server.start()
    assert list(store.append("a", [NewObservation(text="other", entities=["node/0"])], now=3.0).seqs) == [4]
    found = store.search("a", ["lost"], limit=9)
    assert (found.seq, list(found.candidates)) == (4, [])
    assert projection(store, "a") == before
    with client_of(server) as client:
        client.flushall()
    assert store.topics("a", after="", limit=9) == []
    assert store.search("a", ["other"], limit=9).seq == 0


def test_a_consolidation_fits_into_a_script(
    shared_redis: RedisServer, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(shared_redis)
    store.append(
        "many", [NewObservation(text="x", entities=[f"n/{n}/{k}" for k in range(32)]) for n in range(20)], now=1.0
    )
    batch = store.batch("many", limit=512)
    assert len(batch.observations) == redis_store.BATCH_TOPICS // 32
    monkeypatch.setattr(redis_store, "BATCH_BYTES", 50_000)
    store.append("large", some(10, 16_000), now=1.0)
    assert len(store.batch("large", limit=512).observations) == 3
    drain(store, "many")
    drain(store, "large")
    assert store.buffers() == []
    assert len(store.topics("many", after="", limit=1000)) == 640


def test_a_service_whose_redis_is_away(tmp_path: Path, new_redis: New) -> None:
    server = new_redis()
    body = {"observations": [{"text": "the fan failed"}]}
    with httpx.Client(verify=False) as client:  # noqa: S501 - plain HTTP; it saves reading the certificates
        server.kill()
        # It starts without Redis, too: who waits for whom must not matter.
        service = MemoryServer(server.url, tmp_path, "--no-auth", wait=False)
        try:
            for _ in range(2):
                assert service.status("/readyz") == 503
                assert service.status("/healthz") == 200
                assert service.status("/metrics") == 200
                for method, path, json in [
                    ("POST", "observations", body),
                    ("POST", "search", {"query": "fan"}),
                    ("GET", "topics", None),
                ]:
                    answer = client.request(method, f"{service.url}/v1/spaces/a/{path}", json=json)
                    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
                    assert str(server.folder) not in answer.text
                server.start()
                _until(lambda: service.status("/readyz") == 200)
                written = client.post(f"{service.url}/v1/spaces/a/observations", json=body)
                assert written.status_code == 202
                found = client.post(f"{service.url}/v1/spaces/a/search", json={"query": "fan"}).json()
                assert found["seq"] == written.json()["seqs"][0]
                server.kill()
        finally:
            service.kill()


def test_a_password_stays_out_of_the_log(tmp_path: Path, new_redis: New) -> None:
    server = new_redis("requirepass hunter2")
    service = MemoryServer(
        server.url, tmp_path, "--no-auth", environment={"STERNPOST_MEMORY_REDIS_PASSWORD": "hunter2"}
    )
    server.kill()
    assert service.status("/readyz") == 503
    service.kill()
    assert "hunter2" not in service.log.read_text()


def test_two_services_on_one_redis(tmp_path: Path, new_redis: New) -> None:
    server = new_redis()
    services = [MemoryServer(server.url, tmp_path, "--no-auth", "--buffer-age", "0.05") for _ in range(2)]
    try:
        with httpx.Client(verify=False) as client:  # noqa: S501 - plain HTTP; it saves reading the certificates
            for number in range(6):
                body = {"observations": [{"text": f"event {number}", "entities": ["node/1"]}]}
                written = client.post(f"{services[number % 2].url}/v1/spaces/a/observations", json=body)
                (seq,) = written.json()["seqs"]
                other = services[(number + 1) % 2].url
                found = client.post(f"{other}/v1/spaces/a/search", json={"query": f"event {number}", "minSeq": seq})
                assert found.json()["hits"][0]["text"] == f"event {number}"
                job = other + written.headers["location"]
                _until(lambda job=job: client.get(job).json()["state"] == "done")  # type: ignore[misc]
                assert client.get(f"{other}/v1/spaces/a/topics/node/1").json()["sources"] == number + 1
    finally:
        for service in services:
            service.kill()


def _until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.03)
