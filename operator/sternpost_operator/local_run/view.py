"""The live view: the job, its nodes, and what happened, four times a second."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Protocol, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sternpost_operator.local_run.facts import Header, NodeRow, header, node_rows
from sternpost_operator.local_run.snapshot import Snapshot
from sternpost_operator.local_run.timeline import Event, Level

REFRESH_PER_SECOND = 4
MAX_EVENTS = 200
_STYLES = {
    Level.INFO: "default",
    Level.GOOD: "green",
    Level.WARNING: "yellow",
    Level.BAD: "bold red",
    Level.INJECTED: "magenta",
}
_PHASES = {"Running": "bold green", "Succeeded": "bold green", "Failed": "bold red", "Recovering": "bold yellow"}


class RunView(Protocol):
    """What shows a run to a person. A context: it owns the terminal while it is open."""

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the terminal back."""
        ...

    def update(self, snapshot: Snapshot, events: list[Event]) -> None:
        """Show what is known now; `events` are new."""
        ...

    def say(self, text: str) -> None:
        """A line that stays."""
        ...


class LiveView:
    """With a terminal."""

    def __init__(self, console: Console, job: str) -> None:
        self._console = console
        self._job = job
        self._events: deque[tuple[float, Event]] = deque(maxlen=MAX_EVENTS)
        self._live = Live(console=console, refresh_per_second=REFRESH_PER_SECOND, auto_refresh=False)
        self._drawn_at = float("-inf")

    def __enter__(self) -> Self:
        """Take over the lower part of the terminal."""
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last picture where it is."""
        self._live.__exit__(kind, error, trace)

    def update(self, snapshot: Snapshot, events: list[Event]) -> None:
        """Draw, unless that was done a moment ago."""
        self._events.extend((event.at - snapshot.started_at, event) for event in events)
        if snapshot.at - self._drawn_at >= 1 / REFRESH_PER_SECOND or events:
            self._drawn_at = snapshot.at
            self._live.update(self.render(snapshot), refresh=True)

    def say(self, text: str) -> None:
        """A line above the picture."""
        self._live.console.print(text, highlight=False, markup=False)

    def render(self, snapshot: Snapshot) -> RenderableType:
        """The picture."""
        nodes = node_rows(snapshot)
        parts: list[RenderableType] = [_header_panel(header(snapshot, self._job))]
        if nodes:
            parts.append(_nodes_table(nodes))
        # What is left of the terminal: borders and titles take 9 lines.
        room = max(4, self._console.size.height - len(nodes) - 11)
        parts.append(_timeline_panel(list(self._events)[-room:]))
        return Group(*parts)


def _header_panel(facts: Header) -> Panel:
    grid = Table.grid(padding=(0, 3))
    first = [
        Text(facts.phase, style=_PHASES.get(facts.phase, "bold")),
        Text(f"step {_or_dash(facts.step)}"),
        Text(f"{_number(facts.steps_per_second, '.1f')} steps/s"),
        Text(f"loss {_number(facts.loss, '.4f')}"),
    ]
    age = f", {facts.checkpoint_age:.0f} s old" if facts.checkpoint_age is not None else ""
    second = [
        Text(f"attempt {facts.attempt}"),
        Text(f"{facts.restarts} restarts"),
        Text(f"goodput {_number(facts.goodput, '.0%')}"),
        Text(f"checkpoint: step {_or_dash(facts.checkpoint_step)}{age}"),
    ]
    grid.add_row(*first)
    grid.add_row(*second)
    return Panel(grid, title=f"{facts.job}  {facts.seconds:.0f} s", title_align="left", box=box.ROUNDED)


def _nodes_table(rows: list[NodeRow]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False)
    for column in ("node", "state", "pod", "role", "launcher", "step"):
        table.add_column(column, justify="right" if column == "step" else "left", no_wrap=True)
    for row in rows:
        bad = row.state == "dead" or "excluded" in row.marks
        style = "red" if bad else ("yellow" if row.marks or row.state == "not ready" else "")
        state = Text(", ".join(part for part in (row.state, *row.marks) if part))
        table.add_row(row.node, state, row.pod, row.role, row.launcher, _or_dash(row.step), style=style)
    return table


def _timeline_panel(events: list[tuple[float, Event]]) -> Panel:
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", no_wrap=True, style="dim")
    table.add_column(no_wrap=True, overflow="ellipsis")
    for seconds, event in events:
        table.add_row(f"{seconds:.1f} s", Text(event.text, style=_STYLES[event.level]))
    return Panel(table, title="what happened", title_align="left", box=box.ROUNDED)


def _or_dash(value: object | None) -> str:
    return "-" if value is None else str(value)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
