"""What this sidecar has in memory for others: its own ranks' slots, and the parts it keeps."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Protocol

import structlog
import xxhash

from sternpost_checkpoint.errors import FormatError
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.ring.channel import Channel, seconds_for
from sternpost_checkpoint.ring.description import MAX_META_BYTES, Description, parse_description, size_on_wire
from sternpost_checkpoint.ring.errors import RefusedError
from sternpost_checkpoint.ring.protocol import Holding, Push
from sternpost_checkpoint.ring.shelf import Part, Shelf
from sternpost_checkpoint.ring.slots import LocalSlots

_log = structlog.get_logger()


class State(Protocol):
    """Something described, with bytes."""

    @property
    def description(self) -> Description:
        """What it is."""

    def tensor(self, number: int) -> memoryview:
        """The bytes of a held tensor."""


class Holder:
    """Both kinds, as one."""

    def __init__(self, slots: LocalSlots, shelf: Shelf, favoured: Callable[[], Collection[int]]) -> None:
        self._slots = slots
        self._shelf = shelf
        self._favoured = favoured
        """The ranks whose parts belong here by the order of the ring."""

    def holdings(self) -> list[Holding]:
        """Everything that can be had here."""
        found = []
        for rank, index, header in self._slots.headers():
            try:
                state = self._slots.describe(rank, index, header)
            except (FormatError, RefusedError, OSError) as error:
                _log.warning("a slot is not offered", rank=rank, reason=str(error))
                continue
            found.append(_holding(state.description))
        return found + [_holding(part.description) for part in self._shelf.parts()]

    @contextmanager
    def open(self, step: int, run: int, rank: int) -> Iterator[State]:
        """A state, whole or a part. Raises RefusedError, kind `missing`."""
        generation = Generation(step, run)
        state = self._slots.find(rank, generation)
        if state is not None:
            yield state
            return
        part = self._shelf.part(rank, generation)
        if part is None:
            raise RefusedError("missing", f"step {step} of run {run} of rank {rank} is not here")
        with self._shelf.reading(part):
            yield part

    def receive(self, channel: Channel, request: Push) -> None:
        """Take a part. Raises RefusedError before its bytes are sent, or for bytes that are not what they should be."""
        tail = size_on_wire(0, request.tensors)
        if not tail <= request.bytes <= tail + MAX_META_BYTES:
            raise RefusedError("request", "a description of this size cannot be one of so many tensors")
        favoured = self._favoured()
        deadline = time.monotonic() + seconds_for(request.bytes + request.payload)
        channel.send_json({"go": "description"}, deadline)
        data = bytearray(request.bytes)
        channel.receive_into(memoryview(data), deadline)
        try:
            description = parse_description(memoryview(data), request.tensors, channel.peer)
        except FormatError as error:
            raise RefusedError("request", str(error)) from error
        if description.held_bytes != request.payload:
            raise RefusedError("request", "the payload is not as long as the tensors that it says it has")
        known = self._shelf.part(*_key(description))
        if known is not None and known.description.is_same(description) and all(map(known.is_intact, known.offsets)):
            channel.send_json({"kept": True}, deadline)
            return
        with self._shelf.receiving(description, favoured) as part:
            channel.send_json({"go": "payload"}, deadline)
            _fill(channel, part, deadline)
        self._shelf.drop_left_over(favoured)
        channel.send_json({"kept": True}, deadline)


def _key(description: Description) -> tuple[int, Generation]:
    return (description.header.rank, description.generation)


def _fill(channel: Channel, part: Part, deadline: float) -> None:
    for number in part.offsets:
        target = part.tensor(number)
        channel.receive_into(target, deadline)
        if xxhash.xxh3_128_digest(target) != part.description.digests[number]:
            raise RefusedError("request", f"tensor {number} does not match its hash: it was damaged on the way")


def _holding(description: Description) -> Holding:
    header = description.header
    return Holding(
        step=header.step,
        run=header.run,
        rank=header.rank,
        world_size=header.world_size,
        replicated=description.meta.replicated,
        whole=all(description.held),
    )
