"""Runs the checks that come before the ranks, in a thread of their own: the launcher goes on answering meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Callable

from sternpost_launcher.attempt_file import Attempt
from sternpost_launcher.checks_gpu import check_gpu
from sternpost_launcher.checks_machine import (
    check_clock,
    check_command,
    check_disk,
    check_memory,
    check_shared_memory,
    disk_folders,
)
from sternpost_launcher.checks_network import check_peer, check_rendezvous
from sternpost_launcher.children import Children
from sternpost_launcher.settings import Settings
from sternpost_launcher.verdict import Verdict


class Preflight:
    """The checks of one attempt. `verdicts` is complete once `done`."""

    def __init__(
        self,
        *,
        settings: Settings,
        command: Sequence[str],
        attempt: Attempt,
        worker: int,
        children: Children,
        wake: Callable[[], None],
    ) -> None:
        self.attempt = attempt
        self.worker = worker
        self.verdicts: list[Verdict] = []
        self._settings = settings
        self._command = command
        self._children = children
        self._wake = wake
        self._cancelled = threading.Event()
        self._done = threading.Event()
        threading.Thread(target=self._run, name="preflight", daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether all checks have been made."""
        return self._done.is_set()

    @property
    def failed(self) -> list[Verdict]:
        """The checks that did not pass; what the thread could not finish counts as one."""
        if not self.verdicts:
            return [Verdict("preflight", False, "the checks broke off: see the launcher's log")]
        return [verdict for verdict in self.verdicts if not verdict.ok]

    def cancel(self) -> None:
        """Let the checks end soon; their verdicts are of no interest any more."""
        self._cancelled.set()

    def _run(self) -> None:
        try:
            self.verdicts = self._check()
        finally:
            self._done.set()
            self._wake()

    def _check(self) -> list[Verdict]:
        environment = self._settings.environment
        verdicts = [
            check_command(self._command, environment),
            check_clock(time.time(), self.attempt.issued_at),
            check_memory(),
            check_disk(disk_folders(self._settings.control_dir, environment)),
            check_shared_memory(self._settings.shm_dir),
        ]
        if self.worker == 0:
            verdicts.append(check_rendezvous(self.attempt.master_port))
        # What takes long is asked only if the rest is well.
        if all(verdict.ok for verdict in verdicts):
            verdicts.append(check_gpu(self._children, environment, self.attempt.ranks_per_worker))
        if self.worker != 0 and all(verdict.ok for verdict in verdicts):
            first = self.attempt.workers[0]
            verdicts.append(
                check_peer(self.attempt.master_address, first.address, first.eagle_eye_port, self._cancelled)
            )
        return verdicts


def describe_failure(failed: Sequence[Verdict]) -> str:
    """One sentence for each check that failed."""
    return "; ".join(f"preflight check {verdict.check} failed: {verdict.detail}" for verdict in failed)
