"""The trainer's end of the mailbox."""

from __future__ import annotations

import logging
import time
import uuid
from pathlib import Path
from typing import Any

from sternpost_checkpoint.errors import CheckpointError
from sternpost_checkpoint.shm.files import make_directory
from sternpost_checkpoint.shm.heartbeat import sidecar_alive
from sternpost_checkpoint.shm.mailbox import ask, forget, take_answer

_log = logging.getLogger("sternpost_checkpoint")

POLL_SECONDS = 0.01
SILENT_SECONDS = 60.0
"""How long a sidecar that gives no sign of life is waited for; the kubelet restarts one that died within it."""
LOG_SECONDS = 10.0


class SidecarError(CheckpointError):
    """The sidecar answered with an error of this kind: damaged, storage, memory, superseded, request."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class SidecarLink:
    """Asks the sidecar of this Pod. A question outlives the sidecar: its successor answers."""

    def __init__(self, shm: Path, directory: Path) -> None:
        self._shm = shm
        self._directory = directory
        make_directory(directory)
        forget(directory)

    def call(self, body: dict[str, Any]) -> dict[str, Any]:
        """Ask and wait, as long as the sidecar lives. Raises SidecarError, CheckpointError when it stays silent."""
        request_id = uuid.uuid4().hex
        ask(self._directory, request_id, body)
        started = alive_at = logged_at = time.monotonic()
        while True:
            answer = take_answer(self._directory, request_id)
            if answer is not None:
                error = answer.get("error")
                if isinstance(error, dict):
                    raise SidecarError(str(error.get("kind")), str(error.get("message")))
                return answer
            now = time.monotonic()
            if sidecar_alive(self._shm, time.time()):
                alive_at = now
            if now - alive_at > SILENT_SECONDS:
                raise CheckpointError(
                    f"the checkpoint sidecar has not answered for {SILENT_SECONDS:.0f} s: look at the logs of container"
                    " sternpost-checkpoint; it must share the volume at STERNPOST_SHM_DIR with the trainer"
                )
            if now - logged_at > LOG_SECONDS:
                logged_at = now
                _log.warning("waiting for the checkpoint sidecar: request=%s seconds=%.0f", body["type"], now - started)
            time.sleep(POLL_SECONDS)
