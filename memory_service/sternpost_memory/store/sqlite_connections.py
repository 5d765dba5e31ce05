"""Connections to an SQLite file: one writer at a time, readers beside it, errors that say the way out."""

from __future__ import annotations

import queue
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sternpost_memory.errors import StoreBusy, StoreCorrupted, StoreError, StoreFull, StoreUnavailable
from sternpost_memory.store.sqlite_schema import migrate

BUSY_SECONDS = 5.0
IDLE_READERS = 16
ALMOST_FULL_BYTES = 1024 * 1024
WORTH_CHECKING_BYTES = 32 * 1024 * 1024
"""A file up to this size is read whole when it is opened; a larger one would make the start slow."""


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors about the file and the disk into `StoreError`. A mistake in a statement stays what it is."""
    try:
        yield
    except sqlite3.Error as error:
        if (known := _meaning(error, path)) is None:
            raise
        raise known from error


def damaged(path: Path, how: object) -> StoreCorrupted:
    """The error for a file that does not hold what it should."""
    return StoreCorrupted(
        f"{path} is damaged or not a memory store ({how}): restore it from a backup, or save what can be saved with "
        f"`sqlite3 {path} .recover`, or move it away to begin with an empty one"
    )


def _meaning(error: sqlite3.Error, path: Path) -> StoreError | None:
    # The low byte is the class of the error, the rest its details.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
    meaning: StoreError | None = None
    match code:
        case sqlite3.SQLITE_FULL:
            meaning = StoreFull(f"no space left to write {path}: free some, or raise --store-limit if it is set")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            meaning = StoreBusy(f"another process held {path} for more than {BUSY_SECONDS:g} s: try again")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            meaning = damaged(path, error)
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CANTOPEN if _almost_full(path):
            meaning = StoreFull(f"no space left on the disk of {path}: free some")
        case (
            sqlite3.SQLITE_IOERR
            | sqlite3.SQLITE_CANTOPEN
            | sqlite3.SQLITE_READONLY
            | sqlite3.SQLITE_PERM
            | sqlite3.SQLITE_AUTH
        ):
            meaning = StoreUnavailable(
                f"{path} cannot be read or written ({error}): check that its folder exists, that this user may write "
                "to it, and that the disk is sound"
            )
    return meaning


def _almost_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < ALMOST_FULL_BYTES
    except OSError:
        return False


class Connections:
    """The writer and the readers of one file. With `durable=False` it may be lost with the machine's power.

    Raises:
        StoreError: the file cannot be used; the message says why and what to do.
    """

    def __init__(self, path: Path, *, max_bytes: int | None = None, durable: bool = True) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._durable = durable
        self._lock = threading.Lock()
        self._readers: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue(IDLE_READERS)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnavailable(
                f"the folder {path.parent} cannot be made ({error.strerror}): make it, or give another path with --store"
            ) from error
        with translated(path):
            self._writer = self._connect()
            try:
                self._prepare()
            except BaseException:
                self._writer.close()
                raise

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)

    def _prepare(self) -> None:
        # Tables first: a file of something else is left as it is, its journal mode included.
        migrate(self._writer, str(self.path))
        self._writer.execute("PRAGMA journal_mode = WAL")
        # With FULL a commit returns only when the log is on disk; NORMAL would lose acknowledged writes with the power.
        self._writer.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'OFF'}")
        self._writer.execute("PRAGMA foreign_keys = ON")
        if self.path.stat().st_size <= WORTH_CHECKING_BYTES:
            (verdict,) = self._writer.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise damaged(self.path, verdict)
        if self._max_bytes is not None:
            (page,) = self._writer.execute("PRAGMA page_size").fetchone()
            self._writer.execute(f"PRAGMA max_page_count = {max(1, self._max_bytes // page)}")

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it is on disk when the block has ended, or none of it if that raised."""
        with self._lock, translated(self.path):
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            finally:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A view of one moment, which writers neither wait for nor change."""
        with translated(self.path):
            connection = self._reader()
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                self._return(connection)

    def _reader(self) -> sqlite3.Connection:
        try:
            return self._readers.get_nowait()
        except queue.Empty:
            connection = self._connect()
            connection.execute("PRAGMA query_only = ON")
            return connection

    def _return(self, connection: sqlite3.Connection) -> None:
        try:
            self._readers.put_nowait(connection)
        except queue.Full:
            connection.close()

    def close(self) -> None:
        """Close the writer and the idle readers."""
        with self._lock, closing(self._writer):
            while not self._readers.empty():
                self._readers.get_nowait().close()
