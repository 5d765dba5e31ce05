"""Finds every process that belongs to this Pod's ranks."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

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

    def remember(self, started: Started) -> None:
        """Have `find` look for these ranks, too, which an earlier launcher started."""
        if started.boot_id == boot_id():
            self._seen.update((rank.pid, rank.start_time) for rank in started.ranks)

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
        own = os.getpid()
        mine = select(everyone, own, self._children.helpers(), self._seen)
        if orphans or not self._adopts:
            spared = ancestors(everyone, own)
            marked = [
                process
                for process in everyone
                if process.pid not in spared
                and not process.dead
                and has_environment(process.pid, ATTEMPT_VARIABLE, self._identity)
            ]
            seen = {(process.pid, process.start_time) for process in marked}
            mine = select(everyone, own, self._children.helpers(), self._seen | seen)
        self._seen.update((process.pid, process.start_time) for process in mine)
        return mine


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
