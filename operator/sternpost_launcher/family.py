"""Finds every process that belongs to this Pod's ranks."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import Optional

from sternpost_launcher.children import Children
from sternpost_launcher.processes import Process, ancestors, boot_id, descendants, has_environment, list_processes
from sternpost_launcher.rank_environment import ATTEMPT_VARIABLE
from sternpost_launcher.settings import Settings
from sternpost_launcher.started_file import Started


class Family:
    """Descendants of the launcher, those it inherited included; where that is not enough, what their environment says.

    `adopts`: whether orphans come to the launcher, as PID 1 or subreaper. If not, or for what an earlier launcher left
    behind, processes are told by the environment that ranks are started with, which their descendants inherit.
    """

    def __init__(self, settings: Settings, children: Children, *, adopts: bool) -> None:
        self._children = children
        self._adopts = adopts
        self._identity = {
            "STERNPOST_CONTROL_DIR": str(settings.control_dir),
            "STERNPOST_POD": settings.environment.get("STERNPOST_POD"),
            "STERNPOST_POD_UID": settings.environment.get("STERNPOST_POD_UID"),
        }
        self._seen: set[tuple[int, int]] = set()
        self._strangers: set[tuple[int, int]] = set()

    def take_over(self, started: Optional[Started]) -> list[Process]:
        """What an earlier launcher left behind; to be called before there are ranks.

        Children that this process has by then otherwise, as from a shell that became it, are none of its business.
        """
        if started is not None and started.boot_id == boot_id():
            self._seen.update((rank.pid, rank.start_time) for rank in started.ranks)
        everyone = list_processes()
        marked = {(process.pid, process.start_time) for process in self._marked(everyone)}
        self._strangers = {(process.pid, process.start_time) for process in descendants(everyone, [os.getpid()])} - (
            marked | self._seen
        )
        return self.find(orphans=True)

    def find(self, *, orphans: bool = False) -> list[Process]:
        """All that are alive now; empty only if two looks in a row found none, as processes move while one looks.

        `orphans`: also those that an earlier launcher left behind.
        """
        return self._look(orphans) or self._look(orphans)

    def forget(self) -> None:
        """All are gone."""
        self._seen.clear()

    def _look(self, orphans: bool) -> list[Process]:
        everyone = list_processes()
        if orphans or not self._adopts:
            self._seen.update((process.pid, process.start_time) for process in self._marked(everyone))
        strangers = {p.pid for p in everyone if (p.pid, p.start_time) in self._strangers}
        mine = select(everyone, os.getpid(), self._children.helpers() | strangers, self._seen)
        self._seen.update((process.pid, process.start_time) for process in mine)
        return mine

    def _marked(self, everyone: Sequence[Process]) -> list[Process]:
        above = ancestors(everyone, os.getpid())
        return [
            process
            for process in everyone
            if process.pid not in above
            and not process.dead
            and has_environment(process.pid, ATTEMPT_VARIABLE, self._identity)
        ]


def select(
    everyone: Sequence[Process], own: int, helpers: Collection[int], seen: set[tuple[int, int]]
) -> list[Process]:
    """The living descendants of `own`, those of `seen` that still live, and their descendants; no `helpers`."""
    above = ancestors(everyone, own)
    elders = [p.pid for p in everyone if (p.pid, p.start_time) in seen and p.pid not in above]
    excluded = above | set(helpers) | {process.pid for process in descendants(everyone, helpers)}
    found = {process.pid: process for process in everyone if process.pid in elders}
    found.update((process.pid, process) for process in descendants(everyone, [own, *elders]))
    return [process for process in found.values() if process.pid not in excluded and not process.dead]
