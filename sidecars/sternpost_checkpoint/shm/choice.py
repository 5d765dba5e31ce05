"""Which slot a save may write. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class SlotView:
    """What the writer knows of a slot."""

    sequence: int | None
    """None: nothing readable in it."""
    released: bool
    """The sidecar is done with it."""


def slot_to_write(slots: Sequence[SlotView], *, sidecar_alive: bool) -> int | None:
    """Choose the slot for the next save: an unreadable one, else the older; None when that is still needed.

    The newest readable slot is never chosen, so there is always one whole state in memory. A dead sidecar needs
    nothing: then the older slot is given up, so that at least the memory stays fresh.
    """
    unreadable = [index for index, slot in enumerate(slots) if slot.sequence is None]
    if unreadable:
        return unreadable[0]
    oldest = min(range(len(slots)), key=lambda index: slots[index].sequence or 0)
    return oldest if slots[oldest].released or not sidecar_alive else None
