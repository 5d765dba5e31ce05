"""The interface to whatever holds the objects of a job."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from sternpost_eagle_eye.attempt import Attempt
from sternpost_eagle_eye.report import Anomaly


@dataclass(frozen=True)
class AttemptDocument:
    """An Attempt and the very bytes it was read from: the launcher gets all of it, newer fields included."""

    attempt: Attempt
    content: bytes


class ControlPlane(Protocol):
    """Calls may raise OSError while the control plane does not answer."""

    def attempts(self) -> AsyncIterator[AttemptDocument]:
        """The Attempt as it is, and then each newer version soon after it was written. Never ends by itself."""
        ...

    async def current(self) -> AttemptDocument | None:
        """The Attempt as it is now; None if there is none."""
        ...

    async def write_anomaly(self, anomaly: Anomaly) -> None:
        """Create the object, or update the one of that name, whose `firstSeen` stays."""
        ...
