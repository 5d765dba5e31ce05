"""What a holder says of a state in memory: the slot's header, its meta JSON, a hash of each tensor, and which it has.

On the wire: the first 200 bytes of the slot, the meta JSON, 16 bytes a tensor (xxh3-128), one byte a tensor (1: held).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import xxhash

from sternpost_checkpoint.errors import FormatError
from sternpost_checkpoint.format.table import Meta, TensorSpec, parse_meta
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.shm.layout import USED_BYTES, SlotHeader, SlotState, pack_fields, pack_prefix, unpack_header

DIGEST_BYTES = 16
MAX_META_BYTES = 64 * 2**20
"""Far over what a state of a hundred thousand tensors needs."""
_NO_FILE = 2**62


@dataclass(frozen=True)
class Description:
    """A rank's state, without its bytes."""

    header: SlotHeader
    meta_json: bytes
    meta: Meta
    digests: tuple[bytes, ...]
    """Of each tensor; of one that is not held, what the saving rank had."""
    held: tuple[bool, ...]

    @property
    def generation(self) -> Generation:
        """Step and run."""
        return Generation(*self.header.generation)

    def to_bytes(self) -> bytes:
        """As on the wire."""
        page = pack_prefix(SlotState.READY) + pack_fields(self.header)
        return page + self.meta_json + b"".join(self.digests) + bytes(self.held)

    def keeping(self, held: Sequence[bool]) -> Description:
        """The same, of a holder that has less."""
        return Description(self.header, self.meta_json, self.meta, self.digests, tuple(held))

    def is_same(self, other: Description) -> bool:
        """Whether it is about the same bytes. `==` cannot tell: a header may hold NaN, which differs from itself."""
        return (
            self.header.is_same(other.header)
            and self.meta_json == other.meta_json
            and (self.digests, self.held) == (other.digests, other.held)
        )

    @property
    def held_bytes(self) -> int:
        """Of the tensors that are held."""
        return sum(spec.bytes for spec, held in zip(self.meta.tensors, self.held, strict=True) if held)


def size_on_wire(meta_bytes: int, tensors: int) -> int:
    """Bytes of a description."""
    return USED_BYTES + meta_bytes + tensors * (DIGEST_BYTES + 1)


def parse_description(data: memoryview, tensors: int, where: str) -> Description:
    """Check everything. Raises FormatError naming `where`."""
    tail = tensors * (DIGEST_BYTES + 1)
    if tensors < 0 or len(data) < USED_BYTES + tail or len(data) > USED_BYTES + MAX_META_BYTES + tail:
        raise FormatError(f"{where}: a description of {len(data)} bytes cannot be one of {tensors} tensors")
    header = unpack_header(bytes(data[:USED_BYTES]), _NO_FILE)
    if header is None:
        raise FormatError(f"{where}: the header is damaged")
    meta_json = bytes(data[USED_BYTES : len(data) - tail])
    if len(meta_json) != header.meta_bytes or xxhash.xxh3_128_digest(meta_json) != header.meta_hash:
        raise FormatError(f"{where}: the meta JSON does not match its hash")
    meta = parse_meta(meta_json, where)
    if len(meta.tensors) != tensors or meta.payload_bytes > header.payload_bytes:
        raise FormatError(f"{where}: the table is of another state than the header")
    hashes = bytes(data[len(data) - tail : len(data) - tensors])
    digests = tuple(hashes[start : start + DIGEST_BYTES] for start in range(0, len(hashes), DIGEST_BYTES))
    return Description(header, meta_json, meta, digests, tuple(bool(flag) for flag in data[len(data) - tensors :]))


def must_be_replicated(spec: TensorSpec) -> bool:
    """Whether the tensor is lost with its worker: no other rank has it. Its equal blocks, too: they may be as far away."""
    return not spec.replicated
