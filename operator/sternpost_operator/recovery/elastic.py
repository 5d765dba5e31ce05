"""How many workers the next attempt has.

An elastic job runs with `max` workers if that many are ready, and after `waitSeconds` with fewer, down to `min`. It grows
back at its next attempt, whatever the reason for that one; a running attempt is not ended in order to grow.
"""

from __future__ import annotations

from collections.abc import Callable

from sternpost_operator.recovery.view import View


def size(view: View, ready: int, *, has_waited: Callable[[float], bool]) -> int | None:
    """The number of workers to start with `ready` Pods, or None to wait for more."""
    spec = view.job.spec
    if ready >= spec.max_workers:
        return spec.max_workers
    if spec.elastic is None or ready < spec.elastic.min:
        return None
    return ready if has_waited(spec.elastic.wait_seconds) else None
