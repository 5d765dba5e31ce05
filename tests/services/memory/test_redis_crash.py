"""`kill -9` of the service and of Redis: what was acknowledged is there, exactly once."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from memory_server import MemoryServer
from memory_store_conformance import assert_nothing_lost, drain, projection
from redis_server import RedisServer

from sternpost_memory.store.redis import PREFIX, RedisStore

KILLS = 4


def test_killed_at_every_command_of_a_consolidation(
    shared_redis: RedisServer, open_store: Callable[..., RedisStore]
) -> None:
    prefix = uuid.uuid4().hex
    program = Path(__file__).with_name("crash_at_command.py")
    done = subprocess.run(
        [sys.executable, str(program), shared_redis.url, prefix],
        check=True,
        timeout=100,
        capture_output=True,
        text=True,
    )
    results = []
    whole = done.stdout.split()
    assert len(whole) == 2
    for last in whole:
        stem, _, count = last.rpartition("-")
        assert int(count) > 5
        for number in range(1, int(count) + 1):
            store = open_store(shared_redis, f"{stem}-{number}")
            log = [item.text for item in store.observations("a", after=0, limit=99)]
            assert log == ["it happened"] * 2
            found = projection(store, "a")
            drain(store, "a", now=50.0)
            results.append((found, projection(store, "a")))
            store.close()
    after = results[-1][0]
    befores = [found for found, _ in results if found != after]
    assert befores
    assert all(found == befores[0] for found in befores)
    assert all(final == after for _, final in results)


@pytest.mark.timeout(240)
def test_killed_at_random_moments_while_many_write(tmp_path: Path, new_redis: Callable[..., RedisServer]) -> None:
    """Two replicas, three writers; either replica or Redis is killed at random moments."""
    server = new_redis()
    replicas = [
        MemoryServer(server.url, tmp_path, "--no-auth", "--buffer-count", "10", "--buffer-age", "0.05")
        for _ in range(2)
    ]
    chance = random.Random(3)  # noqa: S311 - not a secret
    acknowledged: dict[int, str] = {}
    stop = threading.Event()

    def write(writer: int) -> None:
        number = 0
        with httpx.Client(verify=False) as client:  # noqa: S501 - plain HTTP; it saves reading the certificates
            while not stop.is_set():
                number += 1
                texts = [f"writer {writer} batch {number} item {item}" for item in range(3)]
                body = {"observations": [{"text": text, "entities": [f"node/{number % 4}"]} for text in texts]}
                answer = insist(client, writer + number, f"{writer}-{number}", body)
                acknowledged.update(zip(answer.json()["seqs"], texts, strict=True))

    def insist(client: httpx.Client, turn: int, key: str, body: object) -> httpx.Response:
        """Until it is acknowledged: a writer cannot know whether a write that was cut off has happened."""
        while True:
            turn += 1
            try:
                answer = client.post(
                    f"{replicas[turn % 2].url}/v1/spaces/a/observations", json=body, headers={"Idempotency-Key": key}
                )
            except httpx.TransportError:
                time.sleep(0.05)  # the pace of retries, nothing is waited for
                continue
            if answer.status_code == 202:
                return answer
            assert answer.status_code == 503, answer.text
            assert answer.headers["retry-after"] == "1"
            time.sleep(0.05)  # as above

    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    try:
        for thread in writers:
            thread.start()
        for number in range(KILLS):
            enough = len(acknowledged) + chance.randrange(10, 60)
            deadline = time.monotonic() + 60
            while len(acknowledged) < enough:
                assert time.monotonic() < deadline, f"only {len(acknowledged)} of {enough} are acknowledged"
                time.sleep(0.002)
            if number % 2:
                replicas[number // 2 % 2].kill()
                replicas[number // 2 % 2].start()
            else:
                server.kill()
                server.start()
    finally:
        stop.set()
        for thread in writers:
            thread.join()
        for replica in replicas:
            replica.kill()
    server.kill()
    server.start()

    store = RedisStore(server.url, prefix=PREFIX)
    assert len(acknowledged) > 50
    assert_nothing_lost(store, "a", acknowledged)
    store.close()
