"""A bucket prefix as the storage, through obstore: S3, GCS, Azure. Nothing is ever renamed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from sternpost_checkpoint.errors import FormatError, NotFoundError, StoreError
from sternpost_checkpoint.format.names import check_name
from sternpost_checkpoint.store.base import Entry, Store

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_PART_BYTES = 8 * 2**20


class ObstoreStore(Store):
    """Objects of an obstore; a put is atomic and durable there by contract."""

    def __init__(self, objects: ObjectStore, uri: str) -> None:
        self._objects: Any = objects
        self.uri = uri

    def put(self, name: str, pieces: Iterable[bytes | memoryview]) -> int:
        """Write or replace `name`: a multipart upload, which only becomes visible when it is completed."""
        size = 0
        with (
            self._explained("write", name),
            obstore.open_writer(self._objects, check_name(name), buffer_size=_PART_BYTES) as writer,
        ):
            for piece in pieces:
                writer.write(bytes(piece))
                size += len(piece)
        return size

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Conditional put (If-None-Match)."""
        with self._explained("create", name):
            try:
                obstore.put(self._objects, check_name(name), data, mode="create", use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    def replace(self, name: str, data: bytes, expected: bytes | None) -> bool:
        """Conditional put (If-Match on the version that was compared)."""
        if expected is None:
            return self.put_if_absent(name, data)
        with self._explained("replace", name):
            try:
                found = obstore.get(self._objects, check_name(name))
                meta = found.meta
                if meta["size"] != len(expected) or bytes(found.bytes()) != expected:
                    return False
                version: Any = {key: meta[key] for key in ("e_tag", "version") if meta.get(key) is not None}
                obstore.put(self._objects, name, data, mode=version, use_multipart=False)
            except (PreconditionError, FileNotFoundError):
                return False
        return True

    def get(self, name: str, limit: int) -> bytes:
        """Read a whole object."""
        with self._explained("read", name):
            found = obstore.get(self._objects, check_name(name))
            if found.meta["size"] > limit:
                raise self.too_large(name, found.meta["size"], limit)
            return bytes(found.bytes())

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Read a range."""
        if length == 0:
            return b""
        with self._explained("read", name):
            size = obstore.head(self._objects, check_name(name))["size"]
            if offset + length > size:
                raise FormatError(f"{self.uri}: {name} is cut short: it ends at {size}, not behind {offset + length}")
            return bytes(obstore.get_range(self._objects, name, start=offset, length=length))

    def size(self, name: str) -> int:
        """Bytes of an object."""
        with self._explained("look at", name):
            return int(obstore.head(self._objects, check_name(name))["size"])

    def list(self, prefix: str) -> list[Entry]:
        """Every object below `prefix`."""
        with self._explained("list", prefix):
            found = [
                Entry(meta["path"], meta["size"])
                for batch in obstore.list(self._objects, prefix=prefix.rstrip("/") or None)
                for meta in batch
            ]
        return sorted(found, key=lambda entry: entry.name)

    def delete(self, name: str) -> None:
        """Remove an object."""
        with self._explained("delete", name), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._objects, check_name(name))

    @contextlib.contextmanager
    def _explained(self, action: str, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise NotFoundError(f"{self.uri}: {name} is not there") from error
        except (BaseError, OSError) as error:
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise StoreError(
                f"cannot {action} {name or 'anything'} in {self.uri}: {first_line}; check spec.checkpoint.storage,"
                " the credentials of the checkpoint sidecar and the way to the store"
            ) from error
