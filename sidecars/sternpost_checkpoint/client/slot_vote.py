"""Which slot a save goes into, and that all ranks have one: a generation that one rank lacks is never complete."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from sternpost_checkpoint.client.group import Group
from sternpost_checkpoint.client.memory import Slots
from sternpost_checkpoint.shm.heartbeat import sidecar_alive

_log = logging.getLogger("sternpost_checkpoint")

POLL_SECONDS = 0.02
LOG_SECONDS = 5.0


class SlotVote:
    """Chooses slots, alone or with the other ranks."""

    def __init__(self, group: Group, slots: Slots, shm: Path) -> None:
        self._group = group
        self._slots = slots
        self._shm = shm

    def alone(self) -> int | None:
        """This rank's slot, or None while the sidecar needs both."""
        return self._slots.choose(sidecar_alive=sidecar_alive(self._shm, time.time()))

    def together(self, *, wait: bool, mine: int | None = None) -> int | None:
        """This rank's slot if every rank has one, after as long as it takes if `wait`. Blocks until all have called it.

        `mine`: this rank has saved already, into that slot, and only votes.
        """
        logged_at = started = time.monotonic()
        while True:
            index = self.alone() if mine is None else mine
            if not self._group.any(index is None):
                return index
            if not wait:
                return None
            now = time.monotonic()
            if now - logged_at > LOG_SECONDS:
                logged_at = now
                _log.info("waiting for a free slot: seconds=%.0f", now - started)
            time.sleep(POLL_SECONDS)
