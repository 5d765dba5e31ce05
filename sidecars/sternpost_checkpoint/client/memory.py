"""The trainer's two slots: writing a snapshot into one, reading a state from one."""

from __future__ import annotations

import math
import statistics
import time
from pathlib import Path

import numpy as np
import torch
import xxhash

from sternpost_checkpoint.client.snapshot import Snapshot
from sternpost_checkpoint.errors import FormatError, TornSlotError
from sternpost_checkpoint.format.table import Meta, TensorSpec
from sternpost_checkpoint.shm.choice import SlotView, slot_to_write
from sternpost_checkpoint.shm.layout import HEADER_BYTES, SlotHeader, align
from sternpost_checkpoint.shm.paths import SLOTS, slot_path, status_path
from sternpost_checkpoint.shm.slot import SlotWriter, bytes_needed
from sternpost_checkpoint.shm.status import read_status

_FLOOR_SOURCE_BYTES = 64 * 2**20
"""The floor is measured by copying so much, again and again, over the whole slot: more than a cache holds."""


class Slots:
    """Both slot files of this rank."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._slots = [SlotWriter.open(slot_path(directory, index)) for index in range(SLOTS)]
        self._views: dict[int, tuple[object, list[torch.Tensor | None]]] = {}

    def headers(self) -> dict[int, SlotHeader]:
        """The readable slots."""
        found = {}
        for index, slot in enumerate(self._slots):
            try:
                header = slot.header() if slot.refresh() else None
            except FormatError:
                continue  # unreadable is all that matters here: it will be written over
            if header is not None:
                found[index] = header
        return found

    def prepare(self, payload_bytes: int, meta_bytes: int) -> None:
        """Reserve and fault in the memory of both slots, so that the first save is as fast as the others."""
        for slot in self._slots:
            slot.ensure(bytes_needed(payload_bytes, meta_bytes))

    def choose(self, *, sidecar_alive: bool) -> int | None:
        """The slot for the next save; None when both are still needed."""
        headers, status = self.headers(), read_status(status_path(self.directory))
        views = []
        for index in range(SLOTS):
            header = headers.get(index)
            done = status.of(index, header) if header else None
            views.append(
                SlotView(header.sequence if header else None, done is not None and done.progress.releases_slot)
            )
        return slot_to_write(views, sidecar_alive=sidecar_alive)

    def next_sequence(self) -> int:
        """One higher than any in the slots."""
        status = read_status(status_path(self.directory))
        known = [header.sequence for header in self.headers().values()]
        return max([status.highest_sequence, *known]) + 1

    def abandon_after(self, step: int, run: int) -> None:
        """Give up the states of earlier runs behind `step`: the training goes on without them."""
        for index, header in self.headers().items():
            if header.run < run and header.step > step:
                self._slots[index].clear()

    def write(self, index: int, snapshot: Snapshot, meta: bytes) -> int:
        """Copy a snapshot into a slot, which is unreadable from now on; returns the offset of the meta."""
        slot = self._slots[index]
        payload_bytes = snapshot.meta.payload_bytes
        slot.ensure(bytes_needed(payload_bytes, len(meta)))
        slot.begin()
        with torch.no_grad():
            for target, source in zip(self._targets(index, snapshot.meta), snapshot.tensors, strict=True):
                if target is not None:
                    target.copy_(source)
        meta_offset = align(HEADER_BYTES + payload_bytes)
        slot.memory[meta_offset : meta_offset + len(meta)] = meta
        return meta_offset

    def publish(self, index: int, header: SlotHeader) -> None:
        """Make the slot readable."""
        self._slots[index].publish(header)

    def measure_floor(self, index: int, payload_bytes: int, meta_bytes: int) -> float:
        """Seconds of a plain copy of `payload_bytes` into the slot, the median of three. The slot is unreadable then."""
        slot = self._slots[index]
        slot.ensure(bytes_needed(payload_bytes, meta_bytes))
        if payload_bytes == 0:
            return math.nan
        slot.begin()
        target = np.frombuffer(slot.memory, dtype=np.uint8, count=payload_bytes, offset=HEADER_BYTES)
        source = np.full(min(payload_bytes, _FLOOR_SOURCE_BYTES), 1, dtype=np.uint8)
        times = []
        for _ in range(3):
            started = time.perf_counter()
            for start in range(0, payload_bytes, len(source)):
                piece = target[start : start + len(source)]
                piece[:] = source[: len(piece)]
            times.append(time.perf_counter() - started)
        return statistics.median(times)

    def read(self, index: int, header: SlotHeader) -> tuple[Meta, list[torch.Tensor | None]]:
        """The state in a slot; its tensors are views of the slot, not copies. Raises FormatError, TornSlotError."""
        slot = self._slots[index]
        slot.refresh()
        slot.check_unchanged(header)
        meta = slot.meta(header)
        status = read_status(status_path(self.directory)).of(index, header)
        if status is not None and status.payload_hash:
            found = xxhash.xxh3_128_hexdigest(slot.payload(header))
            if found != status.payload_hash:
                raise FormatError(f"{slot.path}: the memory does not match the hash that the sidecar took of it")
        return meta, [self._view(slot, spec) for spec in meta.tensors]

    def check_unchanged(self, index: int, header: SlotHeader) -> None:
        """Raise TornSlotError unless the slot is still what it was."""
        if not header.is_same(self.headers().get(index)):
            raise TornSlotError(f"{self._slots[index].path}: the slot changed while it was restored")

    def _targets(self, index: int, meta: Meta) -> list[torch.Tensor | None]:
        slot = self._slots[index]
        key = (id(slot.memory), [(spec.dtype, spec.shape, spec.offset) for spec in meta.tensors])
        cached = self._views.get(index)
        if cached is None or cached[0] != key:
            self._views[index] = cached = (key, [self._view(slot, spec) for spec in meta.tensors])
        return cached[1]

    @staticmethod
    def _view(slot: SlotWriter, spec: TensorSpec) -> torch.Tensor | None:
        dtype: torch.dtype = getattr(torch, spec.dtype)
        if spec.bytes == 0:
            return torch.empty(spec.shape, dtype=dtype)
        count = math.prod(spec.shape)
        flat = torch.frombuffer(slot.memory, dtype=dtype, count=count, offset=HEADER_BYTES + spec.offset)
        return flat.view(spec.shape)
