"""Eagle-eye: watches each worker of a training job and names the one that is to blame.

In the training image only the reporter is imported (`prometheus_client`, nothing else):

    from sternpost_eagle_eye import StepReporter
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sternpost_eagle_eye.reporter.step_reporter import StepReporter

__all__ = ["StepReporter"]


def __getattr__(name: str) -> Any:
    if name == "StepReporter":
        # Lazy: the sidecar does not need the reporter, nor the trainer the sidecar's libraries.
        from sternpost_eagle_eye.reporter.step_reporter import StepReporter  # noqa: PLC0415

        return StepReporter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
