"""A folder for what can be computed again: it goes away with the process, or with the next one if this one is killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from sternpost_memory.errors import StoreUnavailable

PREFIX = "sternpost-memory-index-"
_LOCK = "lock"


class ScratchFolder:
    """A new folder in `parent` (the system's place for temporary files if none is given).

    Raises:
        StoreUnavailable: it cannot be made.
    """

    def __init__(self, parent: Path | None = None) -> None:
        parent = parent or Path(tempfile.gettempdir())
        try:
            parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(parent)
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            self._lock = _locked(self.path / _LOCK)
        except OSError as error:
            raise StoreUnavailable(
                f"no folder for the search index can be made in {parent} ({error.strerror}): give a writable one with --index"
            ) from error

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _locked(path: Path) -> int | None:
    """A file descriptor that holds the lock for as long as this process lives; None if another one has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        # Without a lock file it is being made, or being removed, by somebody else.
        if folder.stat().st_uid != os.getuid() or not (folder / _LOCK).exists():
            continue
        lock = _locked(folder / _LOCK)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
