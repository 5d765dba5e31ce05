"""A folder as the storage: local disk, NFS, or any mounted volume."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from sternpost_checkpoint.errors import FormatError, NotFoundError, StoreError
from sternpost_checkpoint.format.names import check_name
from sternpost_checkpoint.store.base import Entry, Store

_TEMPORARY = ".tmp-"
_LOCK = ".lock-"


class FileStore(Store):
    """Each object is a file: written to a temporary name, fsynced, renamed, its folder fsynced."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = root.as_uri()

    def put(self, name: str, pieces: Iterable[bytes | memoryview]) -> int:
        """Write or replace `name`."""
        path = self._path(name)
        with self._explained("write", name):
            temporary, size = self._write(path, pieces)
            try:
                temporary.replace(path)
                _sync_folder(path.parent)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
        return size

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Write `name` unless it is there. A hard link is the one atomic way to create a file with its content."""
        path = self._path(name)
        with self._explained("create", name):
            if path.exists():
                return False
            temporary, _ = self._write(path, [data])
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError as error:
                # Not every mounted file system has hard links; there a lock stands in for them.
                if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                    raise
                with self._locked(path):
                    if path.exists():
                        return False
                    temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
            _sync_folder(path.parent)
        return True

    def replace(self, name: str, data: bytes, expected: bytes | None) -> bool:
        """Write `name` under a lock, if it is as expected."""
        path = self._path(name)
        with self._explained("replace", name):
            self._make_folder(path.parent)
            with self._locked(path):
                try:
                    current = path.read_bytes()
                except FileNotFoundError:
                    current = None
                if current != expected:
                    return False
                self.put(name, [data])
        return True

    def get(self, name: str, limit: int) -> bytes:
        """Read a whole object."""
        with self._explained("read", name), self._path(name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise self.too_large(name, size, limit)
            return file.read(size)  # not the limit: so much would be reserved

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Read a range."""
        with self._explained("read", name), self._path(name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if offset + length > size:
                raise FormatError(f"{self.uri}: {name} is cut short: it ends at {size}, not behind {offset + length}")
            file.seek(offset)
            data = file.read(length)
        if len(data) != length:
            raise FormatError(f"{self.uri}: {name} gave {len(data)} of {length} bytes at {offset}")
        return data

    def read_into(self, name: str, offset: int, target: memoryview) -> None:
        """Fill `target` from the file, without a copy in between."""
        with self._explained("read", name), self._path(name).open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if offset + len(target) > size:
                raise FormatError(
                    f"{self.uri}: {name} is cut short: it ends at {size}, not behind {offset + len(target)}"
                )
            rest = target
            while rest:
                count = os.preadv(file.fileno(), [rest], offset + len(target) - len(rest))
                if count == 0:
                    raise FormatError(f"{self.uri}: {name} ends early: it was cut while it was read")
                rest = rest[count:]

    def size(self, name: str) -> int:
        """Bytes of an object."""
        with self._explained("look at", name):
            return self._path(name).stat().st_size

    def list(self, prefix: str) -> list[Entry]:
        """Every file below the folder."""
        found: list[Entry] = []
        folders = [self._folder(prefix)]
        with self._explained("list", prefix):
            while folders:
                try:
                    with os.scandir(folders.pop()) as entries:
                        for entry in entries:
                            if entry.is_dir(follow_symlinks=False):
                                folders.append(Path(entry.path))
                            elif not entry.name.startswith("."):
                                name = Path(entry.path).relative_to(self.root).as_posix()
                                # A file may be collected between being listed and being looked at.
                                with contextlib.suppress(FileNotFoundError):
                                    found.append(Entry(name, entry.stat().st_size))
                except (FileNotFoundError, NotADirectoryError):
                    continue
        return sorted(found, key=lambda entry: entry.name)

    def delete(self, name: str) -> None:
        """Remove a file, and its folder with the last one."""
        path = self._path(name)
        with self._explained("delete", name):
            try:
                path.unlink()
                # Durable, so that what is deleted next cannot vanish before it: a manifest goes before its shards.
                _sync_folder(path.parent)
            except FileNotFoundError:
                pass
            with contextlib.suppress(OSError):  # not empty, or gone
                if path.parent != self.root:
                    path.parent.rmdir()

    def sweep(self, prefix: str, file_name: str) -> int:
        """Remove temporary files of `file_name`."""
        swept = 0
        with self._explained("sweep", prefix):
            for path in self._folder(prefix).rglob(f"{_TEMPORARY}{file_name}-*"):
                path.unlink(missing_ok=True)
                swept += 1
        return swept

    def _path(self, name: str) -> Path:
        return self.root / check_name(name)

    def _folder(self, prefix: str) -> Path:
        return self.root / check_name(prefix.rstrip("/")) if prefix else self.root

    def _write(self, path: Path, pieces: Iterable[bytes | memoryview]) -> tuple[Path, int]:
        temporary = path.with_name(f"{_TEMPORARY}{path.name}-{uuid.uuid4().hex}")
        descriptor = self._create(temporary)
        size = 0
        try:
            try:
                for piece in pieces:
                    size += _write_all(descriptor, memoryview(piece))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except BaseException:
            # Whatever ended it, also an interrupt: half a file is worth nothing, and the caller hears the reason.
            temporary.unlink(missing_ok=True)
            raise
        return temporary, size

    def _create(self, path: Path) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._make_folder(path.parent)
        try:
            return os.open(path, flags, 0o644)
        except FileNotFoundError:
            # A collector removed the folder in between because it was empty.
            self._make_folder(path.parent)
            return os.open(path, flags, 0o644)

    def _make_folder(self, folder: Path) -> None:
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for new in reversed(missing):
            new.mkdir(exist_ok=True)
            _sync_folder(new.parent)

    @contextlib.contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        descriptor = os.open(path.with_name(_LOCK + path.name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _explained(self, action: str, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise NotFoundError(f"{self.uri}: {name} is not there") from error
        except OSError as error:
            raise StoreError(f"cannot {action} {name or 'anything'} in {self.uri}: {_reason(error)}") from error


def _write_all(descriptor: int, data: memoryview) -> int:
    rest = data.cast("B") if data.nbytes else memoryview(b"")
    while rest:  # a write may be short
        written = os.write(descriptor, rest)
        if written == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rest = rest[written:]
    return data.nbytes


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "no space left: make room, or lower spec.checkpoint.keep, and the next save goes through"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"{error.strerror}: let the checkpoint sidecar's user write there, or set another spec.checkpoint.storage"
        )
    if error.errno == errno.EIO:
        return "input/output error: the disk or its server is failing; checkpoints stop until it works"
    return str(error.strerror or error)
