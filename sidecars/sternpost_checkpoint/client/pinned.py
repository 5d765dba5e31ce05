"""Registering a slot's memory with the GPU driver, so that it copies into it directly and in the background."""

from __future__ import annotations

import logging
from typing import Any

import torch

_log = logging.getLogger("sternpost_checkpoint")


def driver() -> Any | None:
    """The binding of the CUDA runtime once the training uses a GPU, else None: this must not initialise it."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return torch.cuda.cudart()  # type: ignore[no-untyped-call]
    return None


class Pinned:
    """At most one registered range, moved when the memory is mapped elsewhere."""

    def __init__(self) -> None:
        self._range: tuple[int, int] | None = None
        self._refused = False

    def move(self, runtime: Any | None, address: int, size: int) -> None:
        """Register `size` bytes at `address` in place of what was registered. A refusal costs speed only, and is logged."""
        if runtime is None or self._range == (address, size) or self._refused:
            return
        self.release(runtime)
        code = int(runtime.cudaHostRegister(address, size, 0))
        if code != 0:
            self._refused = True
            _log.warning(
                "shared memory cannot be pinned, saves from the GPU will be slower: code=%d bytes=%d; raise the limit of"
                " locked memory (ulimit -l) of the trainer's container",
                code,
                size,
            )
            return
        self._range = (address, size)

    def release(self, runtime: Any | None) -> None:
        """Undo it, before the memory is unmapped."""
        if runtime is not None and self._range is not None:
            runtime.cudaHostUnregister(self._range[0])
            self._range = None
