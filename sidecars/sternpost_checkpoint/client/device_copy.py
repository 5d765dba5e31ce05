"""From a GPU into pinned shared memory, on a stream of its own.

The copies wait for the work that the training has queued so far, run beside what the processor copies meanwhile, and are
complete when `finish` returns: the slot is not published before. The driver copies at full speed, and without a stop
in between, only into memory that is registered with it (`pinned`); into other memory it still copies correctly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class DeviceRun:
    """Small tensors of one device that lie one behind the other: gathered there, then transferred at once."""

    tensors: list[torch.Tensor]
    rows: list[torch.Tensor]
    """Their places in `gathered`."""
    gathered: torch.Tensor
    """uint8, one dimension, on the device."""
    place: torch.Tensor
    """As much in the payload."""

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.gathered.device


class DeviceCopy:
    """Copies table entries into their places. Nothing is done where there are none."""

    def __init__(self, places: Sequence[tuple[int, torch.Tensor]], runs: Sequence[DeviceRun] = ()) -> None:
        self._places = list(places)
        self._runs = list(runs)
        self._streams: dict[torch.device, Any] = {}
        self._events: list[Any] = []

    def start(self, tensors: Sequence[torch.Tensor]) -> None:
        """Queue all copies, from the tensors as they are once the work queued before is done."""
        devices = [tensors[number].device for number, _ in self._places] + [run.device for run in self._runs]
        for device in dict.fromkeys(devices):
            backend = torch.get_device_module(device)
            stream = self._streams.get(device)
            if stream is None:
                stream = self._streams[device] = backend.Stream(device)
            stream.wait_stream(backend.current_stream(device))
            with backend.stream(stream):
                for run in self._runs:
                    if run.device == device:
                        torch._foreach_copy_(run.rows, run.tensors)
                        run.place.copy_(run.gathered, non_blocking=True)
                for number, place in self._places:
                    if tensors[number].device == device:
                        # A source that is not dense is made so on the device: one transfer in place of many small ones.
                        place.copy_(tensors[number].contiguous(), non_blocking=True)
                event = backend.Event()
                event.record(stream)
            self._events.append(event)

    def finish(self) -> None:
        """Wait for the copies; afterwards the training may change the tensors."""
        for event in self._events:
            event.synchronize()
        self._events.clear()
