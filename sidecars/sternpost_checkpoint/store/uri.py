"""From a storage URI to a store."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from sternpost_checkpoint.errors import StoreError
from sternpost_checkpoint.store.base import Store
from sternpost_checkpoint.store.file import FileStore

OBJECT_SCHEMES = ("s3", "gs", "az")


def open_store(uri: str) -> Store:
    """Open the storage at `uri`: file:///FOLDER, or s3, gs, az with BUCKET/PREFIX. Raises StoreError."""
    parts = urlsplit(uri)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise StoreError(f"storage {uri!r}: a file URI needs an absolute path: file:///FOLDER (three slashes)")
        return FileStore(Path(unquote(parts.path)))
    if parts.scheme not in OBJECT_SCHEMES:
        known = ", ".join(("file", *OBJECT_SCHEMES))
        raise StoreError(f"storage {uri!r}: the scheme {parts.scheme!r} is none of {known}")
    # Here, so that a sidecar with a folder starts without loading it.
    from obstore.exceptions import BaseError  # noqa: PLC0415
    from obstore.store import from_url  # noqa: PLC0415

    from sternpost_checkpoint.store.object_store import ObstoreStore  # noqa: PLC0415

    try:
        return ObstoreStore(from_url(uri), uri)
    except (BaseError, ValueError) as error:
        raise StoreError(f"storage {uri!r} cannot be opened: {error}") from error
