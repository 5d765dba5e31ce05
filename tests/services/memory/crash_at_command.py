"""Run by `test_redis_crash`: consolidates copies of a space, killed with SIGKILL before or after the 1st, 2nd, … command.

The copies are the stores with the prefixes PREFIX-before-N and PREFIX-after-N; the last one is consolidated to its end.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from redis.connection import AbstractConnection

from sternpost_memory.consolidation.deterministic import DeterministicEngine
from sternpost_memory.consolidation.step import consolidate_next
from sternpost_memory.model import NewObservation
from sternpost_memory.store.redis import RedisStore

FIRST = NewObservation(text="it happened", entities=["node/1", "job/x"], attributes={"cause": "NodeLost"})
SECOND = NewObservation(text="it happened", entities=["node/1", "job/y"], attributes={"cause": "SlowNode"})


def prepare(url: str, prefix: str) -> None:
    """A space with a consolidated part and a buffer."""
    store = RedisStore(url, prefix=prefix)
    store.append("a", [FIRST], now=10.0)
    consolidate_next(store, DeterministicEngine(), "a", now=20.0)
    store.append("a", [SECOND], now=30.0)
    store.close()


def dying(method: Callable[..., Any], killed_at: int) -> Callable[..., Any]:
    """The method, which is called for the `killed_at`-th time by a process that dies."""
    left = killed_at

    def call(self: AbstractConnection, *arguments: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(self, *arguments, **named)

    return call


def consolidate(url: str, prefix: str, moment: str, killed_at: int) -> None:
    store = RedisStore(url, prefix=prefix)
    store.check()
    # Before a command is sent, or when its answer is about to be read: then Redis may have done it.
    name = "send_packed_command" if moment == "before" else "read_response"
    setattr(AbstractConnection, name, dying(getattr(AbstractConnection, name), killed_at))
    consolidate_next(store, DeterministicEngine(), "a", now=50.0)


def main(url: str, prefix: str) -> None:
    for moment in ("before", "after"):
        killed_at = 0
        while True:
            killed_at += 1
            copy = f"{prefix}-{moment}-{killed_at}"
            prepare(url, copy)
            child = os.fork()
            if child == 0:
                consolidate(url, copy, moment, killed_at)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            if os.WIFEXITED(status):
                if os.WEXITSTATUS(status):
                    sys.exit(os.WEXITSTATUS(status))
                sys.stdout.write(f"{copy}\n")
                break


main(sys.argv[1], sys.argv[2])
