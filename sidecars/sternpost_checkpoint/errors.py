"""Everything that can go wrong with a checkpoint. Messages name the thing, the reason and the way out."""

from __future__ import annotations


class CheckpointError(RuntimeError):
    """Base of all errors of this package."""


class StoreError(CheckpointError):
    """The storage could not do what it was asked."""


class NotFoundError(StoreError):
    """The storage has no object of that name."""


class FormatError(CheckpointError):
    """A file breaks a rule of FORMAT.md; it is refused as a whole."""


class TornSlotError(CheckpointError):
    """A slot changed while it was read: what was read is worth nothing."""


class FencedError(CheckpointError):
    """An attempt that has been superseded tried to register or commit."""


class SharedMemoryError(CheckpointError):
    """The shared memory is missing or too small."""


class RestoreError(CheckpointError):
    """There are checkpoints, but none that can be restored."""
