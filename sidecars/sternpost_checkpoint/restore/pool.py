"""Work in a few threads, within a budget of memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """What a reader may use."""

    threads: int = 4
    memory_bytes: int = 512 * 2**20
    """Beside the targets. A tensor that needs more is read alone."""


class Budget:
    """Bytes that several threads share."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._used = 0
        self._changed = threading.Condition()

    def take(self, amount: int) -> None:
        """Wait until `amount` is free; more than there is waits until nobody else has any."""
        with self._changed:
            self._changed.wait_for(lambda: self._used == 0 or self._used + amount <= self._total)
            self._used += amount

    def give(self, amount: int) -> None:
        """Give it back."""
        with self._changed:
            self._used -= amount
            self._changed.notify_all()


def run_all(
    work: Iterable[T], cost: Callable[[T], int], do: Callable[[T], None], limits: Limits
) -> list[tuple[T, Exception]]:
    """Do all of `work`; returns what failed, with the error. Whatever else `do` raises is raised here."""
    items: Sequence[T] = list(work)
    failed: list[tuple[T, Exception]] = []
    if len(items) <= 1 or limits.threads <= 1:
        for item in items:
            failed += _attempt(item, do)
        return failed
    budget = Budget(limits.memory_bytes)
    with ThreadPoolExecutor(max_workers=limits.threads, thread_name_prefix="restore") as threads:
        running: set[Future[list[tuple[T, Exception]]]] = set()
        try:
            for item in items:
                amount = cost(item)
                budget.take(amount)
                future = threads.submit(_attempt, item, do)
                future.add_done_callback(lambda _, amount=amount: budget.give(amount))  # type: ignore[misc]
                running.add(future)
                # Bounded, and a defect is seen at once.
                if len(running) >= 2 * limits.threads:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    failed += [failure for future in done for failure in future.result()]
            failed += [failure for future in running for failure in future.result()]
        except BaseException:
            threads.shutdown(wait=True, cancel_futures=True)
            raise
    return failed


def _attempt(item: T, do: Callable[[T], None]) -> list[tuple[T, Exception]]:
    from sternpost_checkpoint.errors import CheckpointError  # noqa: PLC0415 # the rest of this file needs nothing

    try:
        do(item)
    except (CheckpointError, OSError) as error:
        return [(item, error)]
    return []
