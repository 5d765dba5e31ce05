"""Saying which extra is missing, before an import fails somewhere deep."""

from __future__ import annotations

from importlib.util import find_spec

from sternpost_checkpoint.errors import CheckpointError

_EXTRAS = {"torch": "trainer", "pydantic": "checkpoint", "obstore": "checkpoint", "zstandard": "checkpoint"}


def need_torch(what: str) -> None:
    """Raise CheckpointError, naming `what` needs it and how to install it, when something is missing."""
    for module, extra in _EXTRAS.items():
        try:
            there = find_spec(module) is not None
        except ValueError:  # a module that was taken out of sys.modules by setting it to None
            there = False
        if not there:
            raise CheckpointError(f"{what}: {module} is not installed: pip install 'sternpost[{extra}]'")
