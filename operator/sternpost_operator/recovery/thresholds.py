"""The detectors' thresholds: changed in the job while it runs, they reach the sidecars with the Attempt."""

from __future__ import annotations

from sternpost_operator.recovery.actions import WriteAttempt
from sternpost_operator.recovery.view import View
from sternpost_operator.resources.attempt import AttemptSpec


def write(view: View, run: AttemptSpec | None) -> tuple[WriteAttempt, ...]:
    """Tell the sidecars of them; nothing where they were told already. The ranks run on."""
    wanted = view.job.spec.eagle_eye
    if run is None or run.eagle_eye == wanted:
        return ()
    return (WriteAttempt(run.model_copy(update={"eagle_eye": wanted, "issued_at": view.now})),)
