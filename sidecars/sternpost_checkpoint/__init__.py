"""Checkpoints that block only for a copy into shared memory; a sidecar compresses, stores and commits them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sternpost_checkpoint.client.checkpointer import Checkpointer
    from sternpost_checkpoint.errors import CheckpointError

__all__ = ["CheckpointError", "Checkpointer"]


def __getattr__(name: str) -> Any:
    # Lazy: the sidecar's image has no torch, and the trainer's has no zstandard.
    if name == "Checkpointer":
        from sternpost_checkpoint.client.checkpointer import Checkpointer  # noqa: PLC0415 # see above

        return Checkpointer
    if name == "CheckpointError":
        from sternpost_checkpoint.errors import CheckpointError  # noqa: PLC0415 # see above

        return CheckpointError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
