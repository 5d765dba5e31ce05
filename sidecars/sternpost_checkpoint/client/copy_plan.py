"""How a snapshot gets into a slot: which tensors are copied by one call together, which in pieces, which one by one.

Small tensors in the processor's memory lie together by dtype (`layout`): one `torch.cat` copies all of a dtype whose sizes
fill their place to the last byte, one `torch.stack` those of one size that do not. Large ones are copied by address, in
pieces, by several threads. Everything else, tensors that are not dense, are on another device, or are made anew each time,
goes through `copy_`.

A plan holds addresses and views of the tensors that it was made of. It fits other tensors only if `fits` says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from sternpost_checkpoint.client.copy_team import CopyTeam, Job, chunks
from sternpost_checkpoint.client.device_copy import DeviceCopy, DeviceRun
from sternpost_checkpoint.client.layout import SMALL_BYTES, Layout
from sternpost_checkpoint.errors import CheckpointError
from sternpost_checkpoint.format.dtypes import ITEM_BYTES
from sternpost_checkpoint.format.table import TensorSpec
from sternpost_checkpoint.shm.layout import ALIGNMENT, align


@dataclass(frozen=True)
class _Run:
    """Small tensors of one dtype, one behind the other in the payload."""

    numbers: list[int]
    flat: list[torch.Tensor]
    """Views of them, on the processor with one dimension each."""
    offset: int
    ragged: bool
    """All have the same size, which does not fill its place. On a device it does not matter."""


def view_of(payload: torch.Tensor, spec: TensorSpec) -> torch.Tensor:
    """A tensor's place in a payload (uint8, one dimension), as a tensor of its dtype and shape."""
    dtype: torch.dtype = getattr(torch, spec.dtype)
    if spec.bytes == 0:
        return torch.empty(spec.shape, dtype=dtype)
    return payload[spec.offset : spec.offset + spec.bytes].view(dtype).view(spec.shape)


class CopyPlan:
    """For one layout and the tensors that were its sources. `loose`: entries to be copied one by one."""

    def __init__(self, layout: Layout, tensors: Sequence[torch.Tensor], loose: Collection[int]) -> None:
        self.layout = layout
        small: list[int] = []
        device_small: list[int] = []
        self._large: list[int] = []
        self._single: list[int] = []
        self._device: list[int] = []
        for number, (tensor, spec) in enumerate(zip(tensors, layout.specs, strict=True)):
            if spec.bytes == 0:
                continue
            if tensor.device.type != "cpu":
                dense = tensor.is_contiguous() and not tensor.is_complex() and not tensor.is_neg()
                together = dense and spec.bytes < SMALL_BYTES and number not in loose
                (device_small if together else self._device).append(number)
            elif not tensor.is_contiguous() or tensor.is_complex() or tensor.is_neg():
                self._single.append(number)
            elif spec.bytes >= SMALL_BYTES:
                self._large.append(number)
            else:
                (self._single if number in loose else small).append(number)
        self._runs = list(self._make_runs(small, tensors))
        self._device_runs = list(self._make_device_runs(device_small, tensors))
        self._small = [number for run in (*self._runs, *self._device_runs) for number in run.numbers]
        self._small_facts = self._facts(tensors, self._small)
        self._large_strides = [tensors[number].stride() for number in self._large]
        self._elsewhere = [tensors[number].device for number in self._device]
        self._addresses: list[int] = []
        self._check_storages(tensors, [*self._large, *self._small])

    def changed(self, tensors: Sequence[torch.Tensor]) -> list[int] | None:
        """Which small tensors are not where they were; None when something else is different."""
        facts = self._facts(tensors, self._small)
        if (
            [tensors[number].stride() for number in self._large] != self._large_strides
            or [tensors[number].device for number in self._device] != self._elsewhere
            or any(tensors[number].device.type != "cpu" for number in self._single)
        ):
            return None
        if facts == self._small_facts:
            return []
        pairs = zip(*facts, strict=True), zip(*self._small_facts, strict=True)
        return [number for number, now, then in zip(self._small, *pairs, strict=True) if now != then]

    def bind(self, payload: torch.Tensor) -> BoundPlan:
        """Prepare copying into one payload (uint8, one dimension)."""
        return BoundPlan(self, payload)

    def addresses(self, tensors: Sequence[torch.Tensor]) -> list[int]:
        """Of the large tensors, as they are now. Whatever is copied is checked to have memory behind it."""
        found = [tensors[number].data_ptr() for number in self._large]
        if found != self._addresses:
            self._check_storages(tensors, self._large)
            self._addresses = found
        self._check_storages(tensors, [*self._single, *self._device])
        return found

    def _check_storages(self, tensors: Sequence[torch.Tensor], numbers: list[int]) -> None:
        """A tensor whose storage was freed would be copied from address 0; torch does so, too."""
        for number in numbers:
            tensor = tensors[number]
            last = sum((extent - 1) * step for extent, step in zip(tensor.shape, tensor.stride(), strict=True))
            if tensor.untyped_storage().nbytes() < (tensor.storage_offset() + last + 1) * tensor.element_size():
                name = self.layout.specs[number].name
                raise CheckpointError(f"{name} has no memory behind it: was its storage freed or resized to nothing?")

    @staticmethod
    def _facts(tensors: Sequence[torch.Tensor], numbers: list[int]) -> tuple[list[int], list[tuple[int, ...]]]:
        chosen = [tensors[number] for number in numbers]
        return list(map(torch.Tensor.data_ptr, chosen)), list(map(torch.Tensor.stride, chosen))

    def _make_runs(self, small: list[int], tensors: Sequence[torch.Tensor]) -> Iterator[_Run]:
        specs = self.layout.specs
        run: list[int] = []
        for number in sorted(small, key=lambda number: specs[number].offset):
            spec, last = specs[number], specs[run[-1]] if run else None
            ragged = spec.bytes % ALIGNMENT != 0
            if last is not None and not (
                spec.offset == align(last.offset + last.bytes)
                and spec.dtype == last.dtype
                and (spec.bytes == last.bytes if ragged else last.bytes % ALIGNMENT == 0)
            ):
                yield from self._finish(run, tensors)
                run = []
            run.append(number)
        yield from self._finish(run, tensors)

    def _finish(self, run: list[int], tensors: Sequence[torch.Tensor]) -> Iterator[_Run]:
        if len(run) == 1:
            self._single.append(run[0])
        elif run:
            first = self.layout.specs[run[0]]
            flat = [tensors[number].detach().view(-1) for number in run]
            yield _Run(run, flat, first.offset, ragged=first.bytes % ALIGNMENT != 0)

    def _make_device_runs(self, small: list[int], tensors: Sequence[torch.Tensor]) -> Iterator[_Run]:
        specs = self.layout.specs
        run: list[int] = []
        for number in sorted(small, key=lambda number: specs[number].offset):
            last = specs[run[-1]] if run else None
            follows = last is not None and specs[number].offset == align(last.offset + last.bytes)
            if run and not (follows and tensors[number].device == tensors[run[-1]].device):
                yield self._device_run(run, tensors)
                run = []
            run.append(number)
        if run:
            yield self._device_run(run, tensors)

    def _device_run(self, run: list[int], tensors: Sequence[torch.Tensor]) -> _Run:
        return _Run(run, [tensors[number].detach() for number in run], self.layout.specs[run[0]].offset, ragged=True)

    def device_copy(self, payload: torch.Tensor) -> DeviceCopy:
        """The copies from devices into one payload."""
        specs = self.layout.specs
        runs = []
        for run in self._device_runs:
            last = specs[run.numbers[-1]]
            gathered = torch.empty(last.offset + last.bytes - run.offset, dtype=torch.uint8, device=run.flat[0].device)
            rows = [
                view_of(gathered, replace(specs[number], offset=specs[number].offset - run.offset))
                for number in run.numbers
            ]
            runs.append(DeviceRun(run.flat, rows, gathered, payload[run.offset : last.offset + last.bytes]))
        return DeviceCopy([(number, view_of(payload, specs[number])) for number in self._device], runs)

    @property
    def parts(self) -> tuple[list[_Run], list[int], list[int]]:
        """Of the processor: runs, and the entries that are large, and that are copied one by one."""
        return self._runs, self._large, self._single


class BoundPlan:
    """A plan and the memory that it copies into."""

    def __init__(self, plan: CopyPlan, payload: torch.Tensor) -> None:
        self.plan = plan
        self._base = payload.data_ptr()
        runs, self._large, single = plan.parts
        specs = plan.layout.specs
        self._together: list[tuple[list[torch.Tensor], torch.Tensor]] = []
        self._stacked: list[tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]] = []
        for run in runs:
            first, last = specs[run.numbers[0]], specs[run.numbers[-1]]
            dtype: torch.dtype = getattr(torch, first.dtype)
            if not run.ragged:
                self._together.append((run.flat, payload[first.offset : last.offset + last.bytes].view(dtype)))
                continue
            count, extent, item = len(run.flat), run.flat[0].numel(), ITEM_BYTES[first.dtype]
            place = payload[first.offset : last.offset + align(last.bytes)].view(dtype)
            rows = place.as_strided((count, extent), (align(first.bytes) // item, 1))
            self._stacked.append((run.flat, torch.empty((count, extent), dtype=dtype), rows))
        self._singles = [(number, view_of(payload, specs[number])) for number in single]
        self._device = plan.device_copy(payload)
        self._addresses: list[int] = []
        self._jobs: list[Job] = []

    def copy(self, tensors: Sequence[torch.Tensor], team: CopyTeam) -> None:
        """Copy `tensors`, which the plan fits. All is there on return."""
        addresses = self.plan.addresses(tensors)
        if addresses != self._addresses:
            specs = self.plan.layout.specs
            self._jobs = chunks(
                (self._base + specs[number].offset, address, specs[number].bytes)
                for number, address in zip(self._large, addresses, strict=True)
            )
            self._addresses = addresses
        with torch.no_grad():
            self._device.start(tensors)
            team.run(self._jobs, lambda: self._copy_small(tensors))
            self._device.finish()

    def _copy_small(self, tensors: Sequence[torch.Tensor]) -> None:
        for flat, place in self._together:
            torch.cat(flat, out=place)
        for flat, scratch, rows in self._stacked:
            torch.stack(flat, out=scratch)
            rows.copy_(scratch)
        for number, place in self._singles:
            place.copy_(tensors[number])
