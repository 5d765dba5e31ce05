"""The progress of a running attempt, told line by line to whoever listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from sternpost_eagle_eye.sidecar.court import Court


@dataclass(frozen=True)
class Pace:
    """Seconds from line to line."""

    least: float = 0.5
    most: float = 5.0
    """Without news; a listener that hears nothing for much longer may take the connection for dead."""
    shares: float = 10
    """At most one part in so many of the sidecar's time goes into reports, however large the job."""


async def progress_lines(court: Court, pace: Pace) -> AsyncIterator[bytes]:
    """One whole report a line: at once, at each piece of news, and now and then. Ends with the attempt, or with the sidecar."""
    session, clock = court.session, asyncio.get_running_loop().time
    while session is not None:
        heard, began = court.news.count, clock()
        report = court.progress()
        if report is None or court.session is not session:
            return
        line = report.to_json() + b"\n"
        least = max(pace.least, pace.shares * (clock() - began))
        yield line
        await court.news.after(heard, began + pace.most - clock())
        await asyncio.sleep(max(0.0, began + least - clock()))
