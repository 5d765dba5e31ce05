"""A store whose every sign of life is seen by the task that waits for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sternpost_checkpoint.sidecar.workers import touch
from sternpost_checkpoint.store.base import Entry, Store


class WatchedStore(Store):
    """Passes everything on. Before and after each operation, and at each piece, the calling task is seen to go on.

    Work that was given up ends here at its next step, before it changes anything: `GivenUpError`.
    """

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.uri = inner.uri

    def put(self, name: str, pieces: Iterable[bytes | memoryview]) -> int:
        """Write or replace."""
        touch()
        size = self.inner.put(name, _watched(pieces))
        touch()
        return size

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Write unless it is there."""
        touch()
        won = self.inner.put_if_absent(name, data)
        touch()
        return won

    def replace(self, name: str, data: bytes, expected: bytes | None) -> bool:
        """Write if it is as expected."""
        touch()
        done = self.inner.replace(name, data, expected)
        touch()
        return done

    def get(self, name: str, limit: int) -> bytes:
        """Read a whole object."""
        touch()
        data = self.inner.get(name, limit)
        touch()
        return data

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Read a range."""
        touch()
        data = self.inner.read(name, offset, length)
        touch()
        return data

    def read_into(self, name: str, offset: int, target: memoryview) -> None:
        """Read a range into memory."""
        touch()
        self.inner.read_into(name, offset, target)
        touch()

    def size(self, name: str) -> int:
        """Bytes of an object."""
        touch()
        size = self.inner.size(name)
        touch()
        return size

    def list(self, prefix: str) -> list[Entry]:
        """Every object below the prefix."""
        touch()
        found = self.inner.list(prefix)
        touch()
        return found

    def delete(self, name: str) -> None:
        """Remove an object."""
        touch()
        self.inner.delete(name)
        touch()

    def sweep(self, prefix: str, file_name: str) -> int:
        """Remove what unfinished writes have left."""
        touch()
        return self.inner.sweep(prefix, file_name)


def _watched(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    for piece in pieces:
        touch()
        yield piece
