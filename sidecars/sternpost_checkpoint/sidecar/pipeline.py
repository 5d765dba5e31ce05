"""Encoding and upload side by side: requests that state their cost, within budgets of memory and processors.

Several threads encode; the calling one takes what they make, in the order of the requests, and hands it to the storage. A request
is begun when the budget has room for its cost, in the order of the requests, so that the first one is never behind the others.
What takes longest is what the others wait for: encoders for room, or the upload for something to send.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sternpost_checkpoint.sidecar.budget import Budget, CancelledError

ItemT = TypeVar("ItemT")


@dataclass(frozen=True)
class Request(Generic[ItemT]):
    """Some work that yields items."""

    cost: int
    """Bytes of memory that it and its unsent items take at most; beyond it, or beyond the budget, it waits for the upload."""
    produce: Callable[[], Iterator[ItemT]]


@dataclass
class Waits:
    """What was waited for, in seconds."""

    encoder: float = 0.0
    """The upload had nothing to send."""
    store: float = 0.0
    """An encoder had no room for what it had made; of all threads together."""
    encoding: float = 0.0
    """Time spent at work, of all threads together."""


class _Lane(Generic[ItemT]):
    """The items of one request on their way from its encoder to the upload."""

    def __init__(self, memory: Budget, size: Callable[[ItemT], int]) -> None:
        self._memory = memory
        self._size = size
        self._items: deque[ItemT] = deque()
        self._buffered = 0
        self._held = 0
        self._finished = self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def open(self, held: int) -> None:
        """Its cost has been taken from the budget."""
        with self._changed:
            self._held = held
            if self._closed:
                self._give_back(held)

    def put(self, item: ItemT) -> None:
        """Hand on; waits while the lane is full. Raises CancelledError."""
        size = self._size(item)
        with self._changed:
            while self._buffered and self._buffered + size > self._held and not self._closed:
                self._changed.wait()
            if self._closed:
                raise CancelledError("the save was given up")
            self._items.append(item)
            self._buffered += size
            self._changed.notify_all()

    def finish(self, error: BaseException | None = None) -> None:
        """Nothing comes any more. What was asked for and not needed goes back to the budget."""
        with self._changed:
            self._finished, self._error = True, error
            self._give_back(self._held - min(self._held, self._buffered))
            self._changed.notify_all()

    def take(self) -> ItemT | None:
        """The next item; None at the end. Raises what the encoder raised."""
        with self._changed:
            while not self._items and not self._finished and not self._closed:
                self._changed.wait()
            if self._closed:
                raise CancelledError("the save was given up")
            if not self._items:
                if self._error is not None:
                    raise self._error
                return None
            item = self._items.popleft()
            self._buffered -= self._size(item)
            if self._finished:
                self._give_back(self._held - min(self._held, self._buffered))
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Nobody takes anything any more."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._give_back(self._held)
            self._changed.notify_all()

    def _give_back(self, amount: int) -> None:
        self._held -= amount
        if amount:
            self._memory.release(amount)


class Stream(Generic[ItemT]):
    """The items of all requests, in their order, encoded while they are taken."""

    def __init__(
        self, requests: Sequence[Request[ItemT]], *, memory: Budget, processors: Budget, size: Callable[[ItemT], int]
    ) -> None:
        self.waits = Waits()
        self._cancelled = threading.Event()
        self._memory, self._processors = memory, processors
        self._lanes = [_Lane[ItemT](memory, size) for _ in requests]
        self._encoders = _Encoders(requests, self._lanes, memory, processors, self._cancelled, self.waits)
        self._threads = min(processors.total, len(requests))

    def items(self) -> Iterator[ItemT]:
        """Start encoding, and yield. Raises what a request raises, and CancelledError after `cancel`."""
        for _ in range(self._threads):
            threading.Thread(target=self._encoders.work, name="encode", daemon=True).start()
        try:
            for lane in self._lanes:
                while True:
                    started = time.perf_counter()
                    item = lane.take()
                    self.waits.encoder += time.perf_counter() - started
                    if item is None:
                        break
                    yield item
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Give up what is not taken yet, and all its memory. From any thread, any number of times."""
        self._cancelled.set()
        for lane in self._lanes:
            lane.close()
        self._memory.wake()
        self._processors.wake()


@dataclass
class _Encoders(Generic[ItemT]):
    requests: Sequence[Request[ItemT]]
    lanes: Sequence[_Lane[ItemT]]
    memory: Budget
    processors: Budget
    cancelled: threading.Event
    waits: Waits
    _next: int = 0
    _taking: threading.Lock = field(default_factory=threading.Lock)
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def work(self) -> None:
        """Encode one request after the other, until there is none."""
        while True:
            # Under the lock: room is asked for in the order of the requests, or a later one could take the first one's.
            with self._taking:
                number = self._next
                if number >= len(self.requests) or self.cancelled.is_set():
                    return
                self._next += 1
                started = time.perf_counter()
                try:
                    held = self.memory.acquire(self.requests[number].cost, self.cancelled)
                except CancelledError:
                    return
                self._count(store=time.perf_counter() - started)
                self.lanes[number].open(held)
            self._encode(self.requests[number], self.lanes[number])

    def _encode(self, request: Request[ItemT], lane: _Lane[ItemT]) -> None:
        try:
            items = request.produce()
            while True:
                with self.processors.holding(1, self.cancelled):
                    started = time.perf_counter()
                    item = next(items, None)
                    self._count(encoding=time.perf_counter() - started)
                if item is None:
                    break
                started = time.perf_counter()
                lane.put(item)
                self._count(store=time.perf_counter() - started)
        except CancelledError:
            return
        except BaseException as error:  # noqa: BLE001 # raised again where the item is taken
            lane.finish(error)
            return
        lane.finish()

    def _count(self, store: float = 0.0, encoding: float = 0.0) -> None:
        with self._counting:
            self.waits.store += store
            self.waits.encoding += encoding
