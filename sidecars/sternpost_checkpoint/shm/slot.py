"""One slot file: pre-faulted memory that one side writes and the other reads, neither trusting the other to live."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path
from typing import Self

import xxhash

from sternpost_checkpoint.errors import FormatError, SharedMemoryError, TornSlotError
from sternpost_checkpoint.format.table import Meta, parse_meta
from sternpost_checkpoint.shm.files import SHARED_FILE, make_directory
from sternpost_checkpoint.shm.layout import (
    HEADER_BYTES,
    MAGIC,
    STATE_OFFSET,
    USED_BYTES,
    SlotHeader,
    SlotState,
    align,
    pack_fields,
    pack_prefix,
    pack_state,
    unpack_header,
    unpack_state,
)

_FIELDS_OFFSET = 16


def bytes_needed(payload_bytes: int, meta_bytes: int) -> int:
    """Size of a slot file, with room for the meta to grow a little: it holds counters."""
    return align(HEADER_BYTES + payload_bytes) + max(meta_bytes * 5 // 4, 4096)


class Slot:
    """A slot file, mapped. Reading never creates or changes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map: mmap.mmap | None = None
        self._identity: tuple[int, int] | None = None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the slot at `path`, mapped if it exists."""
        slot = cls(path)
        slot.refresh()
        return slot

    def refresh(self) -> bool:
        """Map the file as it is now; False when it is missing or no slot yet."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            self._map = self._identity = None
            return False
        if found.st_size < HEADER_BYTES:
            return False
        if self._identity != (found.st_ino, found.st_size):
            try:
                with self.path.open("r+b") as file:
                    opened = os.fstat(file.fileno())
                    # MAP_POPULATE: page faults now, not inside of the first save.
                    self._map = mmap.mmap(file.fileno(), opened.st_size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
            except (FileNotFoundError, ValueError):
                self._map = self._identity = None
                return False
            self._identity = (opened.st_ino, opened.st_size)
        return True

    @property
    def memory(self) -> mmap.mmap:
        """The mapped file. Views of it keep it mapped, whatever happens to the file."""
        if self._map is None:
            raise SharedMemoryError(f"{self.path} is not a slot file")
        return self._map

    @property
    def capacity(self) -> int:
        """Bytes of the mapped file; 0 when it is not mapped."""
        return len(self._map) if self._map is not None else 0

    @property
    def state(self) -> SlotState:
        """The state word."""
        return unpack_state(self.memory[:USED_BYTES]) if self._map is not None else SlotState.EMPTY

    def header(self) -> SlotHeader | None:
        """The header of a READY slot, else None. Raises FormatError for one that cannot be true."""
        if self._map is None:
            return None
        try:
            return unpack_header(self._map[:USED_BYTES], len(self._map))
        except FormatError as error:
            raise FormatError(f"{self.path}: {error}") from error

    def check_unchanged(self, header: SlotHeader) -> None:
        """Raise TornSlotError unless the slot still holds exactly what `header` says."""
        if not header.is_same(self.header()):
            raise TornSlotError(f"{self.path}: the slot was written again while it was read")

    def meta(self, header: SlotHeader) -> Meta:
        """The meta JSON of a READY slot, checked. Raises TornSlotError, FormatError."""
        data = self.memory[header.meta_offset : header.meta_offset + header.meta_bytes]
        self.check_unchanged(header)
        if xxhash.xxh3_128_digest(data) != header.meta_hash:
            raise FormatError(f"{self.path}: the meta JSON does not match its hash")
        meta = parse_meta(data, str(self.path))
        if meta.payload_bytes > header.payload_bytes:
            raise FormatError(f"{self.path}: the tensor table points outside of the payload")
        return meta

    def payload(self, header: SlotHeader) -> memoryview:
        """The payload, not copied."""
        return memoryview(self.memory)[HEADER_BYTES : HEADER_BYTES + header.payload_bytes]


class SlotWriter(Slot):
    """The side that writes. There is one at a time, by protocol (FORMAT.md)."""

    def ensure(self, size: int) -> None:
        """Make the file at least `size` bytes, with every page there.

        Raises SharedMemoryError when the volume is too small; what the slot held before is still there then.
        """
        if self.refresh() and self.capacity >= size:
            return
        make_directory(self.path.parent)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, SHARED_FILE)
        try:
            found = os.fstat(descriptor)
            before = found.st_size
            if found.st_uid == os.geteuid():  # whatever the umask, and before there is anything to map
                os.fchmod(descriptor, SHARED_FILE)
            try:
                # Reserves the pages: without it a full volume is a SIGBUS in the middle of a copy.
                os.posix_fallocate(descriptor, 0, size)
            except OSError as error:
                os.ftruncate(descriptor, before)
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise
                raise SharedMemoryError(self._too_small(size)) from error
        finally:
            os.close(descriptor)
        self.refresh()
        if self.memory[: len(MAGIC)] != MAGIC:
            self.memory[:_FIELDS_OFFSET] = pack_prefix(SlotState.EMPTY)

    def begin(self) -> None:
        """Declare the content invalid. Whoever dies from here on leaves a slot that nobody reads."""
        self.memory[:_FIELDS_OFFSET] = pack_prefix(SlotState.WRITING)

    def clear(self) -> None:
        """Give the content up."""
        self.memory[:_FIELDS_OFFSET] = pack_prefix(SlotState.EMPTY)

    def put(self, offset: int, data: bytes) -> None:
        """Write bytes at `offset` of the file; between `begin` and `publish`."""
        self.memory[offset : offset + len(data)] = data

    def publish(self, header: SlotHeader) -> None:
        """Write the header and, last, the state word: from now on the slot can be read."""
        self.put(_FIELDS_OFFSET, pack_fields(header))
        self.put(STATE_OFFSET, pack_state(SlotState.READY))

    def _too_small(self, size: int) -> str:
        volume = os.statvfs(self.path.parent)
        total, free = volume.f_frsize * volume.f_blocks, volume.f_frsize * volume.f_bavail
        return (
            f"the shared memory volume at {self.path.parent} is too small: a slot of {size / 2**20:.1f} MiB does not fit,"
            f" {free / 2**20:.1f} of {total / 2**20:.1f} MiB are free. Two slots for each rank of the worker must fit:"
            f" set spec.checkpoint.sharedMemory to at least {-(-2 * size // 2**20)}Mi for each rank"
        )
