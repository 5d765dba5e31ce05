"""A Pod that is told to end may have time for one more checkpoint: the ranks live on for a moment. Pure."""

from __future__ import annotations

from typing import Optional

ANSWER_SECONDS = 3.0
"""How long to wait for the operator to ask for a checkpoint; it learns of an eviction as soon as this Pod does."""
KEEP_SECONDS = 10.0
"""How long ranks that are asked for one live on at most, and never longer than their own grace period."""


class Reprieve:
    """Time between SIGTERM for the launcher and SIGTERM for its ranks. All times are monotonic seconds."""

    def __init__(self, now: float, grace: float) -> None:
        self._answer_by = now + min(ANSWER_SECONDS, grace)
        self._ends_at = now + min(KEEP_SECONDS, grace)

    def is_over(self, now: float, save_at_step: Optional[int]) -> bool:
        """Whether the ranks are to end now. Whoever asked for the checkpoint ends the attempt once it is committed."""
        return now >= (self._answer_by if save_at_step is None else self._ends_at)
