"""What a storage must be able to do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from sternpost_checkpoint.errors import NotFoundError, StoreError

READ_BYTES = 8 * 2**20
"""Pieces in which `read_into` reads, unless a store knows better."""


@dataclass(frozen=True)
class Entry:
    """An object that is there."""

    name: str
    bytes: int


class Store(ABC):
    """Objects by name. What a call has written is durable when it returns; a reader sees it whole or not at all.

    Every method raises StoreError when the storage refuses.
    """

    uri: str

    @abstractmethod
    def put(self, name: str, pieces: Iterable[bytes | memoryview]) -> int:
        """Write or replace `name`; returns its bytes. An exception of `pieces` passes through, nothing is written."""

    @abstractmethod
    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Write `name`; False, and nothing written, when it is there already. At most one of several writers wins."""

    @abstractmethod
    def replace(self, name: str, data: bytes, expected: bytes | None) -> bool:
        """Write `name` if its content is `expected` (None: absent); False when it is not."""

    @abstractmethod
    def get(self, name: str, limit: int) -> bytes:
        """Read a whole object of at most `limit` bytes. Raises NotFoundError, and StoreError for a larger one."""

    @abstractmethod
    def read(self, name: str, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes. Raises NotFoundError, and FormatError when the object is shorter."""

    def read_into(self, name: str, offset: int, target: memoryview) -> None:
        """Fill `target` from `offset` on. Raises as `read` does; what is in `target` then is worth nothing."""
        for start in range(0, len(target), READ_BYTES):
            part = target[start : start + READ_BYTES]
            part[:] = self.read(name, offset + start, len(part))

    @abstractmethod
    def size(self, name: str) -> int:
        """Bytes of an object. Raises NotFoundError."""

    @abstractmethod
    def list(self, prefix: str) -> list[Entry]:
        """Every object below `prefix` (which is empty or ends with a slash), sorted by name, unfinished ones left out."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is no error."""

    def sweep(self, prefix: str, file_name: str) -> int:  # noqa: ARG002 # only some stores leave something behind
        """Remove what unfinished writes of `file_name` left in the folders below `prefix`; returns how many."""
        return 0

    def get_or_none(self, name: str, limit: int) -> bytes | None:
        """Read a whole object, None when it is not there."""
        try:
            return self.get(name, limit)
        except NotFoundError:
            return None

    def too_large(self, name: str, size: int, limit: int) -> StoreError:
        """The error for an object over its limit."""
        return StoreError(f"{self.uri}: {name} has {size} bytes, over the limit of {limit}: it is not of this format")
