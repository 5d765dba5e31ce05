"""Everything but the log can be computed again, to the byte."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sternpost_memory.consolidation.deterministic import DeterministicEngine
from sternpost_memory.consolidation.rebuild import rebuild_file
from sternpost_memory.model import NewObservation
from sternpost_memory.retrieval.search import search
from sternpost_memory.store.sqlite import SqliteStore


def test_rebuild_gives_identical_documents(
    tmp_path: Path, drain: Callable[..., None], projection: Callable[..., Any]
) -> None:
    path = tmp_path / "m.db"
    store = SqliteStore(path)
    chance = random.Random(7)  # noqa: S311 - not a secret
    for step in range(30):
        store.append(
            chance.choice("ab"),
            [
                NewObservation(
                    text=chance.choice(["disk of node-1 failed", "learning rate is 0.1", "node-2 was lost", "lunch"]),
                    occurred_at=chance.choice([None, float(chance.randrange(100))]),
                    entities=chance.choice([[], ["node/node-1"], ["node/node-2", "job/gpt"]]),
                    attributes={"cause": chance.choice(["NodeLost", "SlowNode"])},
                )
                for _ in range(chance.randrange(1, 6))
            ],
            now=float(200 + step),
        )
        if chance.random() < 0.5:
            drain(store, chance.choice("ab"), limit=chance.randrange(1, 9))
    before = {space: projection(store, space) for space in "ab"}
    buffers = store.buffers()
    answers = search(store, "a", "node-1 disk", limit=10)
    # Damage what is computed: a rebuild does not look at it.
    with store._connections.write() as connection:
        connection.execute("UPDATE topics SET document = 'nonsense', version = 77")
        connection.execute("UPDATE facts SET value = '0'")
        connection.execute("DELETE FROM topic_entries WHERE seq % 2 = 0")
    assert projection(store, "a") != before["a"]
    store.close()
    assert rebuild_file(path) == ["a", "b"]
    store = SqliteStore(path)
    assert {space: projection(store, space) for space in "ab"} == before
    assert store.buffers() == buffers
    assert search(store, "a", "node-1 disk", limit=10) == answers
    store.close()


def test_a_space_that_is_not_there(store: SqliteStore) -> None:
    store.rebuild("nothing", DeterministicEngine())
    assert store.spaces() == []
