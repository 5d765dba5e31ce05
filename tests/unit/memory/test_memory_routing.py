from __future__ import annotations

import subprocess
import sys

from sternpost_memory.consolidation.engine import Profile
from sternpost_memory.consolidation.routing import GENERAL, route
from sternpost_memory.model import Observation

PROFILES = [
    Profile("node/node-3", "node/node-3\ncause NodeLost\nnode-3 was lost\nheartbeat of node-3 missing"),
    Profile("node/node-4", "node/node-4\ncause SlowNode\nnode-4 is slow"),
    Profile(GENERAL, "cafeteria closed on friday"),
]


def seen(seq: int, text: str, *entities: str) -> Observation:
    return Observation(seq=seq, text=text, received_at=1.0, entities=list(entities))


def test_entities_decide() -> None:
    assert route([seen(1, "x", "node/a", "job/b", "node/a")], []) == {1: ("node/a", "job/b")}


def test_without_entities_the_words_decide() -> None:
    routes = route(
        [seen(1, "replaced the disk of node-3"), seen(2, "node-4 fan"), seen(3, "cafeteria closed today")], PROFILES
    )
    assert routes == {1: ("node/node-3",), 2: ("node/node-4",), 3: (GENERAL,)}


def test_without_any_topic_it_is_general() -> None:
    assert route([seen(1, "hello")], []) == {1: (GENERAL,)}
    assert route([seen(1, "…")], PROFILES) == {1: (GENERAL,)}


def test_a_topic_that_the_same_batch_begins_can_be_chosen() -> None:
    routes = route([seen(1, "node-7 was lost", "node/node-7"), seen(2, "node-7 is back")], [])
    assert routes[2] == ("node/node-7",)


def test_the_service_starts_without_the_large_library() -> None:
    program = "import sys, sternpost_memory.serve; print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
