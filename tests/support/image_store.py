"""A store over the content of a disk at one moment: for reading only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sternpost_checkpoint.errors import FormatError, NotFoundError, StoreError
from sternpost_checkpoint.format.names import check_name
from sternpost_checkpoint.store.base import Entry, Store


class ImageStore(Store):
    """Objects from a dictionary."""

    uri = "image:"

    def __init__(self, content: Mapping[str, bytes]) -> None:
        self._content = content

    def put(self, name: str, pieces: Iterable[bytes | memoryview]) -> int:
        raise StoreError(f"cannot write {name}: the image is for reading")

    def put_if_absent(self, name: str, data: bytes) -> bool:
        raise StoreError(f"cannot write {name}: the image is for reading")

    def replace(self, name: str, data: bytes, expected: bytes | None) -> bool:
        raise StoreError(f"cannot write {name}: the image is for reading")

    def delete(self, name: str) -> None:
        raise StoreError(f"cannot delete {name}: the image is for reading")

    def get(self, name: str, limit: int) -> bytes:
        data = self._object(name)
        if len(data) > limit:
            raise self.too_large(name, len(data), limit)
        return data

    def read(self, name: str, offset: int, length: int) -> bytes:
        data = self._object(name)
        if offset + length > len(data):
            raise FormatError(f"{self.uri}: {name} is cut short: it ends at {len(data)}, not behind {offset + length}")
        return data[offset : offset + length]

    def size(self, name: str) -> int:
        return len(self._object(name))

    def list(self, prefix: str) -> list[Entry]:
        return [Entry(name, len(self._content[name])) for name in sorted(self._content) if name.startswith(prefix)]

    def _object(self, name: str) -> bytes:
        if check_name(name) not in self._content:
            raise NotFoundError(f"{self.uri}: {name} is not there")
        return self._content[name]
