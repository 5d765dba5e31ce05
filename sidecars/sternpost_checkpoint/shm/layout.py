"""The first page of a slot file, byte by byte. FORMAT.md describes the same in words."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

import xxhash

from sternpost_checkpoint.errors import FormatError

MAGIC = b"STERNSHM"
VERSION = 2
HEADER_BYTES = 4096
ALIGNMENT = 64
MAX_META_BYTES = 256 * 2**20

_PREFIX = struct.Struct("<8sII")  # magic, version, state
_FIELDS = struct.Struct("<QQQQIIQQQ16sddd64s")
_FIELDS_OFFSET = _PREFIX.size
_HASH_OFFSET = _FIELDS_OFFSET + _FIELDS.size
STATE_OFFSET = 12
USED_BYTES = _HASH_OFFSET + 16


class SlotState(IntEnum):
    """The state word. Only a READY slot may be read."""

    EMPTY = 0
    WRITING = 1
    READY = 2


@dataclass(frozen=True)
class SlotHeader:
    """What a READY slot says of itself."""

    sequence: int
    """Grows by one with every save of the rank: the generation counter of the slot."""
    step: int
    run: int
    """The number under which this start of the training is registered in the storage."""
    attempt_number: int
    attempt_id: str
    world_size: int
    rank: int
    payload_bytes: int
    meta_offset: int
    meta_bytes: int
    meta_hash: bytes
    """xxh3-128 of the meta JSON."""
    saved_at: float
    """Unix seconds."""
    blocked_seconds: float
    """How long the trainer stood still for the copy."""
    memcpy_floor_seconds: float
    """One plain copy of as many bytes into the same slot; NaN when it was not measured."""

    @property
    def generation(self) -> tuple[int, int]:
        """(step, run)."""
        return (self.step, self.run)

    def is_same(self, other: SlotHeader | None) -> bool:
        """Compare bit for bit; `==` cannot, since a NaN differs from itself."""
        return other is not None and pack_fields(self) == pack_fields(other)


def align(offset: int) -> int:
    """The next multiple of ALIGNMENT."""
    return (offset + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


def pack_prefix(state: SlotState) -> bytes:
    """Magic, version and state word."""
    return _PREFIX.pack(MAGIC, VERSION, state)


def pack_state(state: SlotState) -> bytes:
    """The state word alone."""
    return struct.pack("<I", state)


def pack_fields(header: SlotHeader) -> bytes:
    """Everything behind the state word, with its hash."""
    attempt_id = header.attempt_id.encode()
    if len(attempt_id) > 64:
        raise FormatError(f"the attempt id {header.attempt_id!r} is longer than 64 bytes")
    fields = _FIELDS.pack(
        header.sequence,
        header.step,
        header.run,
        header.attempt_number,
        header.world_size,
        header.rank,
        header.payload_bytes,
        header.meta_offset,
        header.meta_bytes,
        header.meta_hash,
        header.saved_at,
        header.blocked_seconds,
        header.memcpy_floor_seconds,
        attempt_id,
    )
    return fields + xxhash.xxh3_128_digest(fields)


def unpack_state(page: bytes) -> SlotState:
    """The state of a slot; EMPTY for a file that is not yet a slot.

    Raises FormatError for a slot of another version.
    """
    if len(page) < USED_BYTES:
        return SlotState.EMPTY
    magic, version, state = _PREFIX.unpack_from(page)
    if magic != MAGIC:
        return SlotState.EMPTY
    if version != VERSION:
        raise FormatError(f"slot version {version} is not {VERSION}: trainer and sidecar have different releases")
    return SlotState(state) if state in (0, 1, 2) else SlotState.EMPTY


def unpack_header(page: bytes, file_bytes: int) -> SlotHeader | None:
    """Read the header of a READY slot; None when it is not READY, or torn.

    Raises FormatError when the header is intact but points outside of the file.
    """
    if unpack_state(page) is not SlotState.READY:
        return None
    fields = page[_FIELDS_OFFSET:_HASH_OFFSET]
    if xxhash.xxh3_128_digest(fields) != page[_HASH_OFFSET:USED_BYTES]:
        return None
    values = _FIELDS.unpack(fields)
    try:
        attempt_id = values[13].rstrip(b"\0").decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"slot header: the attempt id is not UTF-8 ({error})") from error
    header = SlotHeader(
        sequence=values[0],
        step=values[1],
        run=values[2],
        attempt_number=values[3],
        attempt_id=attempt_id,
        world_size=values[4],
        rank=values[5],
        payload_bytes=values[6],
        meta_offset=values[7],
        meta_bytes=values[8],
        meta_hash=values[9],
        saved_at=values[10],
        blocked_seconds=values[11],
        memcpy_floor_seconds=values[12],
    )
    if header.meta_bytes > MAX_META_BYTES:
        raise FormatError(f"slot header: meta of {header.meta_bytes} bytes is over the limit of {MAX_META_BYTES}")
    if (
        HEADER_BYTES + header.payload_bytes > header.meta_offset
        or header.meta_offset + header.meta_bytes > file_bytes
        or header.rank >= header.world_size
    ):
        raise FormatError(f"slot header: lengths point outside of the {file_bytes} bytes of the file")
    return header
