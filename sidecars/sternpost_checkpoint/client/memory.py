"""The trainer's two slots: writing a snapshot into one, reading a state from one."""

from __future__ import annotations

import math
import mmap
import os
import statistics
import time
import uuid
from collections import Counter
from pathlib import Path

import torch
import xxhash

from sternpost_checkpoint.client.copy_plan import BoundPlan, CopyPlan, view_of
from sternpost_checkpoint.client.copy_team import CopyTeam, chunks
from sternpost_checkpoint.client.pinned import Pinned, driver
from sternpost_checkpoint.client.snapshot import Snapshot
from sternpost_checkpoint.errors import FormatError, TornSlotError
from sternpost_checkpoint.format.table import Meta
from sternpost_checkpoint.shm.choice import SlotView, slot_to_write
from sternpost_checkpoint.shm.layout import HEADER_BYTES, SlotHeader, align
from sternpost_checkpoint.shm.paths import SLOTS, slot_path, status_path
from sternpost_checkpoint.shm.slot import SlotWriter, bytes_needed
from sternpost_checkpoint.shm.status import read_status

_FLOOR_BYTES = 64 * 2**20
"""The floor is measured on so much: more than a cache holds."""
_LOOSE_AFTER = 2
"""A small tensor that has been elsewhere so often is not looked for again: it is copied by itself."""


class Slots:
    """Both slot files of this rank. `threads`: how many copy."""

    def __init__(self, directory: Path, threads: int = 1) -> None:
        self.directory = directory
        self._slots = [SlotWriter.open(slot_path(directory, index)) for index in range(SLOTS)]
        self._team = CopyTeam(threads)
        self._plan: CopyPlan | None = None
        self._moves: Counter[int] = Counter()
        """How often a small tensor of the present layout was not where it had been."""
        self._bound: dict[int, tuple[CopyPlan, mmap.mmap, BoundPlan]] = {}
        self._pinned = [Pinned() for _ in range(SLOTS)]
        self._pinned_maps: dict[int, mmap.mmap] = {}

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
        for index, slot in enumerate(self._slots):
            slot.ensure(bytes_needed(payload_bytes, meta_bytes))
            self._pin(index)

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

    def plan(self, snapshot: Snapshot) -> CopyPlan:
        """How `snapshot` is copied: as the last one, if its tensors are still where they were."""
        plan = self._plan
        if plan is None or plan.layout is not snapshot.layout:
            self._moves = Counter(dict.fromkeys(snapshot.fresh, _LOOSE_AFTER))
        else:
            changed = plan.changed(snapshot.tensors)
            if changed == []:
                return plan
            self._moves.update(changed or ())
        loose = {number for number, moves in self._moves.items() if moves >= _LOOSE_AFTER}
        self._plan = CopyPlan(snapshot.layout, snapshot.tensors, loose)
        return self._plan

    def write(self, index: int, snapshot: Snapshot) -> int:
        """Copy a snapshot into a slot, which is unreadable from now on; returns the offset of the meta."""
        slot = self._slots[index]
        payload_bytes, meta = snapshot.layout.payload_bytes, snapshot.meta
        plan = self.plan(snapshot)
        slot.ensure(bytes_needed(payload_bytes, len(meta)))
        bound = self._bind(index, plan)
        slot.begin()
        bound.copy(snapshot.tensors, self._team)
        meta_offset = align(HEADER_BYTES + payload_bytes)
        slot.put(meta_offset, meta)
        return meta_offset

    def publish(self, index: int, header: SlotHeader) -> None:
        """Make the slot readable."""
        self._slots[index].publish(header)

    def measure_floor(self) -> float:
        """Seconds that one thread takes to copy a byte of many into memory like a slot's; the median of three.

        Measured on a file of its own: what the slots hold is not touched. NaN where there is no room for it.
        """
        path = self.directory / f".tmp-floor-{uuid.uuid4().hex}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            path.unlink()
            os.posix_fallocate(descriptor, 0, _FLOOR_BYTES)
            memory = mmap.mmap(descriptor, _FLOOR_BYTES, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        except OSError:
            return math.nan
        finally:
            os.close(descriptor)
        target, source = torch.frombuffer(memory, dtype=torch.uint8), torch.ones(_FLOOR_BYTES, dtype=torch.uint8)
        jobs = chunks([(target.data_ptr(), source.data_ptr(), _FLOOR_BYTES)])
        alone = CopyTeam(1)
        times = []
        for _ in range(3):
            started = time.perf_counter()
            alone.run(jobs, lambda: None)
            times.append(time.perf_counter() - started)
        return statistics.median(times) / _FLOOR_BYTES

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
        payload = self._payload(index)
        return meta, [view_of(payload, spec) for spec in meta.tensors]

    def check_unchanged(self, index: int, header: SlotHeader) -> None:
        """Raise TornSlotError unless the slot is still what it was."""
        if not header.is_same(self.headers().get(index)):
            raise TornSlotError(f"{self._slots[index].path}: the slot changed while it was restored")

    def warm(self, snapshot: Snapshot) -> None:
        """Do what the first copy of `snapshot` would do beside copying."""
        plan = self.plan(snapshot)
        for index in range(SLOTS):
            self._bind(index, plan)
        self._team.warm()

    def _payload(self, index: int) -> torch.Tensor:
        return torch.frombuffer(self._slots[index].memory, dtype=torch.uint8, offset=HEADER_BYTES)

    def _bind(self, index: int, plan: CopyPlan) -> BoundPlan:
        self._slots[index].refresh()
        memory = self._slots[index].memory
        known = self._bound.get(index)
        if known is None or known[0] is not plan or known[1] is not memory:
            self._pin(index)
            known = self._bound[index] = (plan, memory, plan.bind(self._payload(index)))
        return known[2]

    def _pin(self, index: int) -> None:
        runtime, memory = driver(), self._slots[index].memory
        if runtime is not None:
            # The old mapping is kept until it is unregistered.
            self._pinned[index].move(runtime, self._payload(index).data_ptr() - HEADER_BYTES, len(memory))
            self._pinned_maps[index] = memory
