"""The other end: asking a peer, and pushing to one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import xxhash

from sternpost_checkpoint.format.table import MAX_TENSORS
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.ring.channel import Channel, connect, seconds_for
from sternpost_checkpoint.ring.description import (
    MAX_META_BYTES,
    Description,
    must_be_replicated,
    parse_description,
    size_on_wire,
)
from sternpost_checkpoint.ring.errors import RingError
from sternpost_checkpoint.ring.keys import SERVER_NAME, RingKeys
from sternpost_checkpoint.ring.members import Peer
from sternpost_checkpoint.ring.protocol import PROTOCOL, Holding, parse_holdings
from sternpost_checkpoint.ring.slots import SlotState
from sternpost_checkpoint.ring.stream import STALL_SECONDS

CONNECT_SECONDS = 5.0
PUSH_BYTES_PER_SECOND = 20 * 2**20
"""Slower, and a push is given up: the commit waits for it."""
HASHED_BYTES = 2**20
"""Received and then hashed while it is still in the cache."""


class PeerClient:
    """A connection to one peer, for one thread at a time."""

    def __init__(self, channel: Channel, instance: str) -> None:
        self._channel = channel
        self.instance = instance
        """Of the peer's process: what it holds is gone when this is another."""

    def holdings(self) -> list[Holding]:
        """What it has. Raises RingError."""
        deadline = time.monotonic() + 2 * STALL_SECONDS
        self._channel.send_json({"type": "holdings"}, deadline)
        return parse_holdings(self._channel.receive_answer(deadline).get("holdings"))

    def describe(self, generation: Generation, rank: int) -> Description:
        """A state that it has. Raises RingError, FormatError."""
        deadline = time.monotonic() + 2 * STALL_SECONDS
        self._channel.send_json(
            {"type": "describe", "step": generation.step, "run": generation.run, "rank": rank}, deadline
        )
        answer = self._channel.receive_answer(deadline)
        size, tensors = _number(answer, "bytes"), _number(answer, "tensors")
        if tensors > MAX_TENSORS or size > size_on_wire(MAX_META_BYTES, tensors):
            raise RingError(f"{self._channel.peer} announces a description of {size} bytes, over the limit")
        data = bytearray(size)
        self._channel.receive_into(memoryview(data), time.monotonic() + seconds_for(size))
        description = parse_description(memoryview(data), tensors, self._channel.peer)
        if description.generation != generation or description.header.rank != rank:
            raise RingError(f"{self._channel.peer} describes another state than was asked for")
        return description

    def read(self, description: Description, targets: Sequence[tuple[int, memoryview]]) -> list[int]:
        """Fill each tensor's target; returns those whose bytes do not match their hash.

        Raises RingError when the connection breaks: what was filled before is not known to be right then.
        """
        generation = description.generation
        total = sum(len(target) for _, target in targets)
        deadline = time.monotonic() + seconds_for(total)
        self._channel.send_json(
            {
                "type": "read",
                "step": generation.step,
                "run": generation.run,
                "rank": description.header.rank,
                "tensors": [number for number, _ in targets],
            },
            deadline,
        )
        if _number(self._channel.receive_answer(deadline), "bytes") != total:
            raise RingError(f"{self._channel.peer} wants to send another number of bytes than was asked for")
        wrong = []
        for number, target in targets:
            hasher = xxhash.xxh3_128()
            for start in range(0, len(target), HASHED_BYTES):
                piece = target[start : start + HASHED_BYTES]
                self._channel.receive_into(piece, deadline)
                hasher.update(piece)
            if hasher.digest() != description.digests[number]:
                wrong.append(number)
        return wrong

    def push(self, state: SlotState) -> int:
        """Have a slot's tensors kept, those that no other rank has; returns how many bytes. Raises RingError, TornSlotError."""
        description = state.description.keeping([must_be_replicated(spec) for spec in state.description.meta.tensors])
        data, payload = description.to_bytes(), description.held_bytes
        deadline = time.monotonic() + STALL_SECONDS + (len(data) + payload) / PUSH_BYTES_PER_SECOND
        self._channel.send_json(
            {"type": "push", "bytes": len(data), "tensors": len(description.held), "payload": payload}, deadline
        )
        self._channel.receive_answer(deadline)
        self._channel.send(data, deadline)
        if self._channel.receive_answer(deadline).get("kept"):
            return 0  # of an earlier push
        for number, held in enumerate(description.held):
            if held:
                self._channel.send(state.tensor(number), deadline)
        self._channel.receive_answer(deadline)
        state.check_unchanged()
        return payload

    def close(self) -> None:
        """End the connection."""
        self._channel.close()


@contextmanager
def open_peer(peer: Peer, keys: RingKeys, *, job_uid: str, attempt: int, worker: int | None) -> Iterator[PeerClient]:
    """Connect and say hello. Raises RefusedError, RingError."""
    deadline = time.monotonic() + CONNECT_SECONDS
    material = keys.current()
    channel = connect(peer.address, peer.port, material.client, SERVER_NAME, deadline)
    try:
        hello = {
            "type": "hello",
            "protocol": PROTOCOL,
            "token": material.tokens[0],
            "job": job_uid,
            "attempt": attempt,
            "worker": worker,
        }
        channel.send_json(hello, deadline)
        answer = channel.receive_answer(deadline)
        yield PeerClient(channel, str(answer.get("instance"))[:64])
    finally:
        channel.close()


def _number(answer: dict[str, object], key: str) -> int:
    value = answer.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise RingError(f"a peer's answer has no valid {key!r}")
    return value
