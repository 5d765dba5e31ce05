"""What is worth telling the operator at once, and how those are woken who wait for it."""

from __future__ import annotations

import asyncio
import contextlib

from sternpost_eagle_eye.vector import Vector


def newsworthy(vector: Vector) -> tuple[object, ...]:
    """The part of a vector whose change is news; steps, losses and loads come with the next report anyway. Pure."""
    launcher, checkpoint = vector.launcher, vector.checkpoint
    return (
        (
            launcher.attempt,
            launcher.state,
            launcher.message,
            launcher.started_at,
            launcher.terminated_at,
            tuple((process.rank, process.exit_code) for process in launcher.ranks),
        )
        if launcher is not None
        else None,
        tuple((rank.rank, rank.phase, rank.first_step, rank.restored_step, rank.restore_at) for rank in vector.ranks),
        (checkpoint.committed_step, checkpoint.problem) if checkpoint is not None else None,
    )


class News:
    """Counts what happened, and wakes all that wait for more."""

    def __init__(self) -> None:
        self.count = 0
        self._event = asyncio.Event()

    def happened(self) -> None:
        """To be called after the change can be seen."""
        self.count += 1
        self._event.set()
        self._event = asyncio.Event()

    async def after(self, count: int, seconds: float) -> None:
        """Until `count` is exceeded, or so many seconds have passed."""
        if self.count == count and seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._event.wait()
