"""What detectors have in common."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from sternpost_eagle_eye.config import EagleEyePolicy
from sternpost_eagle_eye.track import JobTrack

Kind = Literal["worker-gone", "hang", "slow", "hardware", "loss", "data-stall", "storage-stall", "outlier"]


@dataclass(frozen=True)
class Finding:
    """What one detector holds to be true now."""

    kind: Kind
    worker: int | None
    """Index; None where the job and no worker is to blame."""
    confidence: float
    evict: bool
    """Whether the evidence is enough to leave the worker's node."""
    evidence: str


class Detector(Protocol):
    """Asked once an interval."""

    def evaluate(self, job: JobTrack, now: float) -> list[Finding]:
        """All that is wrong at `now`, in seconds of the judge's clock, which stands still while the judge itself does."""
        ...


@runtime_checkable
class Adaptable(Protocol):
    """A detector that has thresholds."""

    def adopt(self, policy: EagleEyePolicy) -> None:
        """From now on these count; what was learnt stays."""
        ...


def names(workers: Iterable[int]) -> str:
    """At most ten of them."""
    found = sorted(workers)
    return ", ".join(str(worker) for worker in found[:10]) + ("…" if len(found) > 10 else "")
