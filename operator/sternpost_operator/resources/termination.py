"""How long a worker Pod may take to end."""

from __future__ import annotations

import math

FLUSH_SECONDS = 30
"""What the checkpoint sidecar has after the ranks are gone to bring the newest generation into the storage."""

SHUTDOWN_SECONDS = 5
"""What the launcher and the sidecars need beside that."""


def termination_seconds(grace_seconds: float, *, checkpoints: bool) -> int:
    """The least `terminationGracePeriodSeconds`; `grace_seconds` is between SIGTERM and SIGKILL for the ranks."""
    return math.ceil(grace_seconds) + (FLUSH_SECONDS if checkpoints else 0) + SHUTDOWN_SECONDS
