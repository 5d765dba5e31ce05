"""The slots of this worker's ranks, as the ring reads them: described, each tensor hashed."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

import structlog
import xxhash

from sternpost_checkpoint.errors import CheckpointError, FormatError
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.ring.description import DIGEST_BYTES, Description
from sternpost_checkpoint.shm.files import read_json, write_json
from sternpost_checkpoint.shm.layout import HEADER_BYTES, SlotHeader
from sternpost_checkpoint.shm.paths import SLOTS, ranks_present, slot_path
from sternpost_checkpoint.shm.slot import Slot

_log = structlog.get_logger()


@dataclass(frozen=True)
class SlotState:
    """A readable slot's content, mapped."""

    slot: Slot
    header: SlotHeader
    description: Description
    payload: memoryview

    def tensor(self, number: int) -> memoryview:
        """The bytes of a tensor, as they are now."""
        spec = self.description.meta.tensors[number]
        return self.payload[spec.offset : spec.offset + spec.bytes]

    def is_intact(self, number: int) -> bool:
        """Whether a tensor's bytes still have the hash that was taken of them."""
        return xxhash.xxh3_128_digest(self.tensor(number)) == self.description.digests[number]

    def check_unchanged(self) -> None:
        """Raises TornSlotError when the trainer has written it again."""
        self.slot.check_unchanged(self.header)


def digests_path(directory: Path, index: int) -> Path:
    """Where the hashes of a slot's tensors are, beside the slot."""
    return directory / f"digests-{index}.json"


@dataclass
class LocalSlots:
    """Reads the ranks' folders; remembers what it has hashed. Thread-safe."""

    shm: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _known: dict[tuple[int, int], SlotState] = field(default_factory=dict)

    def headers(self) -> list[tuple[int, int, SlotHeader]]:
        """Rank, index and header of every readable slot."""
        found = []
        for rank, directory in sorted(ranks_present(self.shm).items()):
            for index in range(SLOTS):
                header = _header(slot_path(directory, index))
                if header is not None and header.rank == rank:
                    found.append((rank, index, header))
        return found

    def find(self, rank: int, generation: Generation) -> SlotState | None:
        """The state of a rank, described; None when no slot has it, or it cannot be read."""
        for other, index, header in self.headers():
            if other == rank and Generation(*header.generation) == generation:
                try:
                    return self.describe(rank, index, header)
                except (CheckpointError, OSError) as error:
                    _log.warning("a slot is not used", rank=rank, reason=str(error))
        return None

    def describe(self, rank: int, index: int, header: SlotHeader) -> SlotState:
        """Hash each tensor of a slot, once for each save. Raises TornSlotError, FormatError."""
        key = (rank, index)
        with self._lock:
            known = self._known.get(key)
        if known is not None and known.header.is_same(header):
            return known
        directory = ranks_present(self.shm).get(rank)
        if directory is None:
            raise FormatError(f"rank {rank} has no folder any more")
        slot = Slot.open(slot_path(directory, index))
        slot.check_unchanged(header)
        memory = slot.memory
        meta_json = memory[header.meta_offset : header.meta_offset + header.meta_bytes]
        meta = slot.meta(header)
        payload = memoryview(memory)[HEADER_BYTES : HEADER_BYTES + header.payload_bytes]
        digests = _read_digests(directory, index, header, len(meta.tensors))
        if digests is None:
            digests = tuple(
                xxhash.xxh3_128_digest(payload[spec.offset : spec.offset + spec.bytes]) for spec in meta.tensors
            )
            slot.check_unchanged(header)
            _write_digests(directory, index, header, digests)
        state = SlotState(slot, header, Description(header, meta_json, meta, digests, (True,) * len(digests)), payload)
        with self._lock:
            self._known[key] = state
        return state

    def forget_missing(self) -> None:
        """Unmap the slots of ranks that are not here any more."""
        present = ranks_present(self.shm)
        with self._lock:
            for key in [key for key in self._known if key[0] not in present]:
                del self._known[key]


def _header(path: Path) -> SlotHeader | None:
    """Without mapping the slot: this is done often."""
    from sternpost_checkpoint.shm.layout import USED_BYTES, unpack_header  # noqa: PLC0415 # beside its only use

    try:
        with path.open("rb", buffering=0) as file:
            return unpack_header(file.read(USED_BYTES), path.stat().st_size)
    except (OSError, FormatError):
        return None


def _read_digests(directory: Path, index: int, header: SlotHeader, tensors: int) -> tuple[bytes, ...] | None:
    value = read_json(digests_path(directory, index), limit=64 * 2**20)
    if value is None or (value.get("sequence"), value.get("step"), value.get("run")) != (
        header.sequence,
        header.step,
        header.run,
    ):
        return None
    hashes = value.get("hashes")
    if not isinstance(hashes, str) or len(hashes) != tensors * DIGEST_BYTES * 2:
        return None
    try:
        data = bytes.fromhex(hashes)
    except ValueError:
        return None
    return tuple(data[start : start + DIGEST_BYTES] for start in range(0, len(data), DIGEST_BYTES))


def _write_digests(directory: Path, index: int, header: SlotHeader, digests: tuple[bytes, ...]) -> None:
    value = {"sequence": header.sequence, "step": header.step, "run": header.run, "hashes": b"".join(digests).hex()}
    try:
        write_json(digests_path(directory, index), value)
    except OSError as error:
        # They are for a sidecar that comes after this one; without them it hashes what it finds.
        _log.warning("the hashes of a slot's tensors are not kept", rank=header.rank, reason=str(error))
