"""What can go wrong between two workers. All of it is survivable: the storage has what no peer gives."""

from __future__ import annotations

from sternpost_checkpoint.errors import CheckpointError


class RingError(CheckpointError):
    """A peer cannot be reached, or does not keep to the protocol."""


class RefusedError(RingError):
    """A peer has understood and says no, with a kind: `token`, `job`, `attempt`, `memory`, `missing`, `request`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
