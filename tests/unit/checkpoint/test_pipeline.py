"""Budgets, and encoding beside the upload."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_checkpoint.sidecar.budget import Budget, CancelledError
from sternpost_checkpoint.sidecar.pipeline import Request, Stream


class Meter:
    """Counts the bytes that were made and not yet taken."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def add(self, amount: int) -> None:
        with self._lock:
            self.now += amount
            self.most = max(self.most, self.now)


def request(meter: Meter, number: int, pieces: list[int], cost: int) -> Request[tuple[int, int, int]]:
    def produce() -> Iterator[tuple[int, int, int]]:
        for position, size in enumerate(pieces):
            meter.add(size)
            yield number, position, size

    return Request(cost, produce)


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.lists(st.integers(1, 50), max_size=6), max_size=12),
    costs=st.lists(st.integers(0, 400), min_size=12, max_size=12),
    total=st.integers(1, 300),
    threads=st.integers(1, 4),
)
def test_everything_comes_in_order_and_within_the_budget(
    sizes: list[list[int]], costs: list[int], total: int, threads: int
) -> None:
    meter, memory, processors = Meter(), Budget(total), Budget(threads)
    requests = [request(meter, number, pieces, costs[number]) for number, pieces in enumerate(sizes)]
    taken = []
    for item in Stream(requests, memory=memory, processors=processors, size=lambda item: item[2]).items():
        taken.append(item[:2])
        meter.add(-item[2])
    assert taken == [(number, position) for number, pieces in enumerate(sizes) for position in range(len(pieces))]
    # One piece for each thread beyond: that is made before it can be known how large it is.
    assert meter.most <= total + 50 * (threads + 1) + sum(1 for cost in costs if cost == 0) * 50
    assert memory.used == processors.used == 0


def test_a_slow_store_holds_the_encoders_back() -> None:
    meter, memory = Meter(), Budget(100)
    requests = [request(meter, number, [40] * 10, 80) for number in range(5)]
    stream = Stream(requests, memory=memory, processors=Budget(2), size=lambda item: item[2])
    items = stream.items()
    meter.add(-next(items)[2])
    deadline = time.monotonic() + 5
    while meter.now < 100 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert meter.now <= 100 + 2 * 40
    assert memory.used <= 100
    for item in items:
        meter.add(-item[2])
    assert memory.used == 0
    assert stream.waits.store > 0


def test_an_error_of_an_encoder_is_raised_where_its_item_is_taken() -> None:
    def broken() -> Iterator[bytes]:
        yield b"first"
        raise ValueError("broken")

    memory = Budget(10)
    items = Stream([Request(5, broken)], memory=memory, processors=Budget(1), size=len).items()
    assert next(items) == b"first"
    with pytest.raises(ValueError, match="broken"):
        next(items)
    assert memory.used == 0


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_giving_up_lets_everyone_go(how: str) -> None:
    ended = threading.Semaphore(0)

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 10
        finally:
            ended.release()

    memory, processors = Budget(30), Budget(3)
    stream = Stream([Request(20, endless) for _ in range(8)], memory=memory, processors=processors, size=len)
    items = stream.items()
    next(items)
    if how == "close":
        items.close()  # type: ignore[attr-defined]
    else:
        stream.cancel()
        with pytest.raises(CancelledError):
            next(items)
    assert ended.acquire(timeout=5)
    deadline = time.monotonic() + 5
    while (memory.used or processors.used or memory.waiting) and time.monotonic() < deadline:
        time.sleep(0.001)
    assert memory.used == processors.used == memory.waiting == 0


def test_the_budget_serves_in_order_and_lets_the_too_large_have_it_all() -> None:
    budget = Budget(10)
    assert budget.acquire(4) == 4
    served: list[int] = []

    def want(cost: int) -> None:
        taken = budget.acquire(cost)
        served.append(cost)
        budget.release(taken)

    threads = []
    for cost in (50, 1):
        threads.append(threading.Thread(target=want, args=(cost,)))
        threads[-1].start()
        deadline = time.monotonic() + 5
        while budget.waiting < len(threads) and time.monotonic() < deadline:
            time.sleep(0.001)
    assert not budget.try_acquire(1)
    budget.release(4)
    for thread in threads:
        thread.join(5)
    assert served == [50, 1]
    assert budget.try_acquire(10)


def test_who_waits_can_be_sent_home() -> None:
    budget, cancelled = Budget(1), threading.Event()
    budget.acquire(1)
    raised = threading.Event()

    def want() -> None:
        try:
            budget.acquire(1, cancelled)
        except CancelledError:
            raised.set()

    thread = threading.Thread(target=want)
    thread.start()
    cancelled.set()
    budget.wake()
    thread.join(5)
    assert raised.is_set()
    budget.release(1)
    assert budget.try_acquire(1)
