"""The local ranks of one attempt."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Sequence
from typing import Optional

from sternpost_launcher.attempt_file import Attempt
from sternpost_launcher.children import Children
from sternpost_launcher.output import RankOutput, Sink
from sternpost_launcher.processes import Process, read_process, send
from sternpost_launcher.rank_environment import rank_environment
from sternpost_launcher.settings import Settings
from sternpost_launcher.started_file import RankRecord

DRAIN_SECONDS = 1.0
"""How long a dead rank's pipes are read on while somebody else holds them."""


class Ranks:
    """Starts the ranks one by one, and knows how they ended."""

    def __init__(self, attempt: Attempt, worker: int, children: Children, sink: Sink) -> None:
        self.attempt = attempt
        self.worker = worker
        self.records: list[RankRecord] = []
        self.first_failure: Optional[RankRecord] = None
        """The first that ended with another code than 0 by itself."""
        self._children = children
        self._sink = sink
        self._outputs: dict[int, RankOutput] = {}
        self._last_exit = 0.0

    def start_next(self, settings: Settings, command: Sequence[str]) -> RankRecord:
        """Start the next local rank. Raises `OSError` when the command cannot be executed."""
        local_rank = len(self.records)
        rank = self.worker * self.attempt.ranks_per_worker + local_rank
        environment = rank_environment(settings.environment, self.attempt, self.worker, local_rank)
        output = RankOutput(self._sink, f"[a{self.attempt.number} r{rank}] ".encode())
        stdout, stderr = output.open()
        try:
            pid = self._children.spawn(command, environment, stdout, stderr)
        finally:
            os.close(stdout)
            os.close(stderr)
        started = read_process(pid)  # there at least as a zombie: only this thread reaps ranks
        record = RankRecord(rank, local_rank, pid, started.start_time if started is not None else 0)
        self.records.append(record)
        self._outputs[rank] = output
        return record

    def collect(self, *, ending: bool) -> list[RankRecord]:
        """The ranks that have ended since the last call. `ending`: they were told to, so it is no failure of theirs."""
        ended = []
        for record in self.records:
            found = None if record.exit_code is not None else self._children.take_exit(record.pid)
            if found is None:
                continue
            record.exit_code, record.exited_at = found.code, found.at
            self._last_exit = time.monotonic()
            ended.append(record)
            if found.code != 0 and not ending and self.first_failure is None:
                self.first_failure = record
        return ended

    @property
    def gone(self) -> bool:
        """Whether every rank has ended."""
        return all(record.exit_code is not None for record in self.records)

    @property
    def succeeded(self) -> bool:
        """Whether every rank of the worker ended with code 0."""
        return len(self.records) == self.attempt.ranks_per_worker and all(rank.exit_code == 0 for rank in self.records)

    def drained(self, now: float) -> bool:
        """Whether all their output was read, or waiting for more is in vain. `now` is monotonic seconds."""
        return now - self._last_exit >= DRAIN_SECONDS or all(output.closed for output in self._outputs.values())

    def forward(self, number: signal.Signals) -> None:
        """Send a signal to the ranks themselves; what they started may not know what to do with it."""
        for record in self.records:
            if record.exit_code is None:
                send(Process(record.pid, record.start_time, 0, 0, ""), number)

    def describe_failure(self, killed: str = "") -> str:
        """Which rank failed first, how, who had to be `killed` thereafter, and its last lines of stderr."""
        first = self.first_failure
        if first is None or first.exit_code is None:
            return ""
        tail = self._outputs[first.rank].tail()
        what = describe_exit(first.rank, first.exit_code) + (f"; {killed}" if killed else "")
        return what + (f"; last lines of rank {first.rank}:\n{tail}" if tail else "")


def describe_exit(rank: int, code: int) -> str:
    """How a rank that was not told to end did so, in words."""
    if code >= 0:
        return f"rank {rank} exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == "SIGKILL":
        return f"rank {rank} was killed by SIGKILL, not by the launcher: perhaps out of memory, raise the memory limit"
    return f"rank {rank} was ended by {name}"


def describe_killed(records: Sequence[RankRecord], killed: Iterable[int], grace: float) -> str:
    """Which processes had to be killed because they did not end in time; empty if there were none."""
    ranks = {record.pid: record.rank for record in records}
    names = [f"rank {ranks[pid]} (pid {pid})" if pid in ranks else f"process {pid}" for pid in sorted(killed)]
    if not names:
        return ""
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return (
        f"{', '.join(names[:4])}{more} did not end within {grace:g} s after SIGTERM and had to be killed: "
        "end on SIGTERM, or allow a longer grace period"
    )
