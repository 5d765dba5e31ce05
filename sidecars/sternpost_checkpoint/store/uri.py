"""From a storage URI to a store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from sternpost_checkpoint.errors import StoreError
from sternpost_checkpoint.store.base import Store
from sternpost_checkpoint.store.file import FileStore
from sternpost_checkpoint.store.secrets import scrub

OBJECT_SCHEMES = ("s3", "gs", "az")

RETRIES = 12
RETRY_SECONDS = 120
"""Of one request, from its first try: a store that throttles (503 SlowDown) is asked again, ever more slowly."""
REQUEST_SECONDS = 120
"""One request moves at most a part of an upload or a piece of a read, so this is a slow line, not a large object."""


def open_store(uri: str) -> Store:
    """Open the storage at `uri`: file:///FOLDER, or s3, gs, az with BUCKET/PREFIX. Raises StoreError."""
    parts = urlsplit(uri)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise StoreError(f"storage {uri!r}: a file URI needs an absolute path: file:///FOLDER (three slashes)")
        return FileStore(Path(unquote(parts.path)))
    if parts.scheme not in OBJECT_SCHEMES:
        known = ", ".join(("file", *OBJECT_SCHEMES))
        raise StoreError(f"storage {_shown(parts)!r}: the scheme {parts.scheme!r} is none of {known}")
    _refuse_credentials(parts)
    # Here, so that a sidecar with a folder starts without loading it.
    from obstore.exceptions import BaseError  # noqa: PLC0415
    from obstore.store import from_url  # noqa: PLC0415

    from sternpost_checkpoint.store.object_store import ObstoreStore  # noqa: PLC0415

    retry: Any = {
        "max_retries": RETRIES,
        "retry_timeout": timedelta(seconds=RETRY_SECONDS),
        "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=10), "base": 2},
    }
    client: Any = {"timeout": timedelta(seconds=REQUEST_SECONDS), "connect_timeout": timedelta(seconds=10)}
    if _allows_http(os.environ):  # options given here hide those of the environment
        client["allow_http"] = True
    try:
        return ObstoreStore(from_url(uri, retry_config=retry, client_options=client), uri)
    except (BaseError, ValueError) as error:
        raise StoreError(f"storage {uri!r} cannot be opened: {scrub(str(error))}") from None


def _allows_http(environ: Mapping[str, str]) -> bool:
    """Whether the environment permits a store without TLS, as a gateway on the same machine may be."""
    names = ("AWS_ALLOW_HTTP", "AZURE_ALLOW_HTTP", "GOOGLE_ALLOW_HTTP")
    return any(environ.get(name, "").lower() in ("1", "true") for name in names)


def _refuse_credentials(parts: SplitResult) -> None:
    """A URI stands in manifests of jobs, logs and metrics: no place for a secret."""
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise StoreError(
            f"storage {_shown(parts)!r}: a URI is SCHEME://BUCKET/PREFIX and nothing else; give credentials and options as"
            " environment variables of the checkpoint sidecar (AWS_…, AZURE_…, GOOGLE_…)"
        )


def _shown(parts: SplitResult) -> str:
    """The URI without what may be a credential."""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
