"""Where a store is, as one writes it on the command line, and the store that is there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from sternpost_memory.errors import SettingsError
from sternpost_memory.store.base import Store

_SCHEME = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*):", re.ASCII)
_REDIS = frozenset({"redis", "rediss", "unix"})


@dataclass(frozen=True, slots=True)
class StoreLocation:
    """What opens a store."""

    where: str
    """`PATH`, `sqlite:PATH`, `redis://HOST:PORT/DATABASE`, `rediss://…` or `unix:///SOCKET`."""
    max_bytes: int | None = None
    """Of an SQLite file."""
    redis_password: str | None = None
    redis_password_file: Path | None = None
    index: Path | None = None
    """Folder for the local index of a Redis store."""

    @property
    def path(self) -> Path | None:
        """The SQLite file, if it is one."""
        scheme = self._scheme
        if scheme in _REDIS:
            return None
        return Path(self.where.removeprefix("sqlite:"))

    def open(self) -> Store:
        """Open the store.

        Raises:
            SettingsError: it is named wrongly, or the other settings do not fit to it.
            StoreError: it cannot be used.
        """
        path = self.path
        if path is None:
            return self._redis()
        if self.redis_password_file or self.index:
            raise SettingsError("--redis-password-file and --index are for a store in Redis: leave them out")
        # Imported here: each process needs one of them.
        from sternpost_memory.store.sqlite import SqliteStore  # noqa: PLC0415

        return SqliteStore(path, max_bytes=self.max_bytes)

    def _redis(self) -> Store:
        if self.max_bytes is not None:
            raise SettingsError("--store-limit is for an SQLite file: set `maxmemory` in Redis instead")
        if self.redis_password and self.redis_password_file:
            raise SettingsError(
                "STERNPOST_MEMORY_REDIS_PASSWORD and --redis-password-file are both set: set one of them"
            )
        if urlsplit(self.where).password:
            raise SettingsError(
                "--store has a password in its URL, where everybody on this machine can read it: give it with "
                "STERNPOST_MEMORY_REDIS_PASSWORD or --redis-password-file"
            )
        from sternpost_memory.store.redis import RedisStore  # noqa: PLC0415 - see above

        return RedisStore(
            self.where, password=self.redis_password, password_file=self.redis_password_file, index=self.index
        )

    @property
    def _scheme(self) -> str | None:
        found = _SCHEME.match(self.where)
        scheme = found["scheme"] if found else None
        if scheme is not None and scheme != "sqlite" and scheme not in _REDIS:
            raise SettingsError(
                f"--store begins with {scheme}:, which is no store: give a path, sqlite:PATH, redis://HOST:PORT/DATABASE, "
                "rediss://… (with TLS) or unix:///SOCKET"
            )
        if not self.where.removeprefix("sqlite:"):
            raise SettingsError("--store is empty: give a path or redis://HOST:PORT/DATABASE")
        return scheme
