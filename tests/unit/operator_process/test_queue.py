from __future__ import annotations

import asyncio

from sternpost_operator.operator_process.queue import WorkQueue


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_workers_wait_for_news() -> None:
    async def go() -> list[str]:
        queue: WorkQueue[str] = WorkQueue(0.0)
        seen: list[str] = []
        both = asyncio.Event()

        async def work() -> None:
            while True:
                key, _ = await queue.take()
                seen.append(key)
                if len(seen) == 2:
                    both.set()
                queue.done(key, None)

        workers = [asyncio.create_task(work()) for _ in range(3)]
        await asyncio.sleep(0)
        for key in ("a", "b", "a"):
            queue.wake(key)
        await asyncio.wait_for(both.wait(), 10)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        return seen

    assert asyncio.run(go()) == ["a", "b"]


def test_a_timer_ends_a_wait_by_itself() -> None:
    async def go() -> tuple[str, float]:
        queue: WorkQueue[str] = WorkQueue(0.0)
        queue.wake("a")
        await queue.take()
        queue.done("a", 0.01)
        return await asyncio.wait_for(queue.take(), 10)

    key, waited = asyncio.run(go())
    assert key == "a"
    assert waited >= 0


def test_depth_counts_what_is_due() -> None:
    clock = Clock()
    queue: WorkQueue[str] = WorkQueue(1.0, clock)
    queue.wake("a")
    queue.wake("b")
    assert queue.depth() == 2
