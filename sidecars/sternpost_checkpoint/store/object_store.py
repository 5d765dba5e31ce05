"""A bucket prefix as the storage, through obstore: S3, GCS, Azure. Nothing is ever renamed."""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from sternpost_checkpoint.errors import FormatError, NotFoundError, StoreError
from sternpost_checkpoint.format.names import check_name
from sternpost_checkpoint.store.base import Entry, Store
from sternpost_checkpoint.store.secrets import scrub

if TYPE_CHECKING:
    from obstore.store import ObjectStore

PART_BYTES = 32 * 2**20
"""Of an upload. S3 takes 10,000 parts, so an object has at most 320 GB."""
UPLOADS = 4
"""Parts on their way at once: PART_BYTES each is what an upload needs of memory."""
READ_BYTES = 16 * 2**20
"""Of one ranged read: small enough to end well before a request's timeout, large enough to be worth one."""
READERS = 4
CONFLICT_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""S3 answers 409 where two conditional writes meet, before either can be seen: it says nothing about who will win. So long
are the waits before the next try."""
_NO_BUCKET = "NoSuchBucket: make the bucket first, or set another spec.checkpoint.storage"

_CODE = re.compile(r"<Code>([^<]{1,100})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,300})</Message>")


class ObstoreStore(Store):
    """Objects of an obstore; a put is atomic and durable there by contract."""

    def __init__(self, objects: ObjectStore, uri: str) -> None:
        self._objects: Any = objects
        self.uri = uri

    def put(self, name: str, pieces: Iterable[bytes | memoryview]) -> int:
        """Write or replace `name`: a multipart upload, visible when it is completed and aborted when it cannot be."""
        size = 0
        with (
            self._explained("write", name),
            obstore.open_writer(
                self._objects, check_name(name), buffer_size=PART_BYTES, max_concurrency=UPLOADS
            ) as writer,
        ):
            for piece in pieces:
                writer.write(bytes(piece))
                size += len(piece)
        return size

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Conditional put (If-None-Match)."""
        check_name(name)
        with self._explained("create", name):
            for pause in (*CONFLICT_SECONDS, None):
                try:
                    obstore.put(self._objects, name, data, mode="create", use_multipart=False)
                except (AlreadyExistsError, PreconditionError):
                    if self._is_there(name):
                        return False
                    if pause is not None:
                        time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 # not a secret: so that two part ways
                    continue
                return True
        raise StoreError(f"cannot create {name} in {self.uri}: the store refuses it again and again without having it")

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
            except (AlreadyExistsError, PreconditionError, FileNotFoundError):
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
            self._check_range(name, offset, length)
            if length <= READ_BYTES:
                return bytes(obstore.get_range(self._objects, name, start=offset, length=length))
        target = bytearray(length)
        self._fill(name, offset, memoryview(target))
        return bytes(target)

    def read_into(self, name: str, offset: int, target: memoryview) -> None:
        """Fill `target`, several pieces at once."""
        with self._explained("read", name):
            self._check_range(name, offset, len(target))
        self._fill(name, offset, target)

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

    def _is_there(self, name: str) -> bool:
        try:
            obstore.head(self._objects, name)
        except FileNotFoundError:
            return False
        return True

    def _check_range(self, name: str, offset: int, length: int) -> None:
        size = obstore.head(self._objects, check_name(name))["size"]
        if offset + length > size:
            raise FormatError(f"{self.uri}: {name} is cut short: it ends at {size}, not behind {offset + length}")

    def _fill(self, name: str, offset: int, target: memoryview) -> None:
        def piece(start: int) -> None:
            part = target[start : start + READ_BYTES]
            with self._explained("read", name):
                data = obstore.get_range(self._objects, name, start=offset + start, length=len(part))
                if len(data) != len(part):
                    raise FormatError(f"{self.uri}: {name} gave {len(data)} of {len(part)} bytes at {offset + start}")
                part[:] = memoryview(data)

        with ThreadPoolExecutor(READERS, thread_name_prefix="read") as pool:
            for _ in pool.map(piece, range(0, len(target), READ_BYTES)):
                pass

    @contextlib.contextmanager
    def _explained(self, action: str, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if "<Code>NoSuchBucket</Code>" in str(error):
                raise StoreError(f"cannot {action} {name or 'anything'} in {self.uri}: {_NO_BUCKET}") from None
            raise NotFoundError(f"{self.uri}: {name} is not there") from None
        except (BaseError, OSError) as error:
            # Without its cause: it quotes the signed request.
            raise StoreError(
                f"cannot {action} {name or 'anything'} in {self.uri}: {_reason(error)}; check spec.checkpoint.storage,"
                " the credentials of the checkpoint sidecar and the way to the store"
            ) from None


def _reason(error: BaseException) -> str:
    """The first line of what obstore says, and S3's own words behind it."""
    text = str(error)
    first = text.splitlines()[0] if text else type(error).__name__
    first = first.partition("<?xml")[0].rstrip(" :")
    words = [found.group(1) for found in (_CODE.search(text), _MESSAGE.search(text)) if found]
    return scrub(" ".join((first, *(f"({word})" for word in words))))
