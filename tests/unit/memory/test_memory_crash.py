"""`kill -9` at any moment: nothing that was acknowledged is lost, nothing is there twice."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from memory_store_conformance import assert_nothing_lost

from sternpost_memory.model import NewObservation
from sternpost_memory.store.sqlite import SqliteStore

KILLS = 3


def test_killed_at_every_statement_of_a_consolidation(
    tmp_path: Path, drain: Callable[..., None], projection: Callable[..., Any]
) -> None:
    original = tmp_path / "original.db"
    store = SqliteStore(original)
    for value in ("NodeLost", "SlowNode"):
        store.append(
            "a",
            [NewObservation(text="it happened", entities=["node/1", "job/x"], attributes={"cause": value})],
            now=10.0,
        )
        if value == "NodeLost":
            drain(store, "a")
    log, before = store.observations("a", after=0, limit=99), projection(store, "a")
    store.close()
    folder = tmp_path / "killed"
    folder.mkdir()
    program = Path(__file__).with_name("crash_at_statement.py")
    subprocess.run([sys.executable, str(program), str(original), str(folder)], check=True, timeout=60)
    copies = sorted(folder.glob("*.db"), key=lambda path: int(path.stem))
    results = []
    for copy in copies:
        store = SqliteStore(copy)
        found = projection(store, "a")
        assert store.observations("a", after=0, limit=99) == log
        drain(store, "a")
        results.append((found, projection(store, "a")))
        store.close()
    after = results[-1][0]
    assert len(copies) > 15
    assert after != before
    assert all(final == after for _, final in results)
    assert all(found in (before, after) for found, _ in results)


def test_killed_at_random_moments_while_many_write(serve: Callable[..., Any]) -> None:
    server = serve("--buffer-count", "10", "--buffer-age", "0.05")
    chance = random.Random(3)  # noqa: S311 - not a secret
    acknowledged: dict[int, str] = {}
    stop = threading.Event()

    def write(writer: int) -> None:
        with httpx.Client(verify=False) as client:  # noqa: S501 - plain HTTP; it saves reading the certificates
            write_with(client, writer)

    def write_with(client: httpx.Client, writer: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            texts = [f"writer {writer} batch {number} item {item}" for item in range(3)]
            body = {"observations": [{"text": text, "entities": [f"node/{number % 4}"]} for text in texts]}
            # Until it is acknowledged: a writer cannot know whether a write that was cut off has happened.
            while True:
                try:
                    answer = client.post(
                        f"{server.url}/v1/spaces/a/observations",
                        json=body,
                        headers={"Idempotency-Key": f"{writer}-{number}"},
                    )
                except httpx.TransportError:
                    time.sleep(0.05)  # the pace of retries, nothing is waited for
                    continue
                break
            assert answer.status_code == 202, answer.text
            acknowledged.update(zip(answer.json()["seqs"], texts, strict=True))

    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in writers:
        thread.start()
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.1, 0.5))  # the moment of the kill
        server.kill()
        server.start()
    stop.set()
    for thread in writers:
        thread.join()
    server.kill()

    store = SqliteStore(server.store)
    assert len(acknowledged) > 50
    assert_nothing_lost(store, "a", acknowledged)
    store.close()
