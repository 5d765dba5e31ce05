"""The view without a terminal: a line for each event, and one of progress every few seconds."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from sternpost_operator.local_run.facts import header
from sternpost_operator.local_run.snapshot import Snapshot
from sternpost_operator.local_run.timeline import Event

PROGRESS_SECONDS = 5.0


class PlainView:
    """Lines such as `[  12.3s] node node-1 is excluded`."""

    def __init__(self, write: Callable[[str], None], job: str) -> None:
        """`write` takes a line without its end."""
        self._write = write
        self._job = job
        self._progress_at = float("-inf")

    def __enter__(self) -> Self:
        """Nothing is to be prepared."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is to be given back."""

    def update(self, snapshot: Snapshot, events: list[Event]) -> None:
        """Write what is new."""
        for event in events:
            self._write(f"[{event.at - snapshot.started_at:7.1f}s] {event.text}")
        if snapshot.at - self._progress_at >= PROGRESS_SECONDS:
            self._progress_at = snapshot.at
            self._write(f"[{snapshot.seconds:7.1f}s] {progress_line(snapshot, self._job)}")

    def say(self, text: str) -> None:
        """A line as it is."""
        self._write(text)


def progress_line(snapshot: Snapshot, job: str) -> str:
    """The job in a line; what is not known is left out."""
    facts = header(snapshot, job)
    parts = [f"{facts.job}: {facts.phase}"]
    if facts.attempt:
        parts.append(f"attempt {facts.attempt}")
    if facts.step is not None:
        parts.append(f"step {facts.step}")
    if facts.steps_per_second is not None:
        parts.append(f"{facts.steps_per_second:.1f} steps/s")
    if facts.loss is not None:
        parts.append(f"loss {facts.loss:.4f}")
    if facts.checkpoint_step is not None:
        age = f" ({facts.checkpoint_age:.0f} s old)" if facts.checkpoint_age is not None else ""
        parts.append(f"checkpoint at step {facts.checkpoint_step}{age}")
    if facts.goodput is not None:
        parts.append(f"goodput {facts.goodput:.0%}")
    return ", ".join(parts)
