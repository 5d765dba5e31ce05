"""The interface to whatever holds the objects of a job."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from sternpost_eagle_eye.control_plane.attempt_document import AttemptDocument
from sternpost_eagle_eye.report import Anomaly


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

    async def aclose(self) -> None:
        """Give back what it holds; nothing is asked of it afterwards."""
        ...
