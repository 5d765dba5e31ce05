"""What the pipeline is short of, and so what a stored byte is worth in seconds of encoding. Pure.

Encoding and upload overlap, so a save takes as long as the slower of them. Each tensor has a frontier of codecs, from fast and
large to slow and small; one price for a second of upload, the same for all tensors, picks a point on each, and the right price
is the one at which both take equally long. It is found as prices are: raised while the storage is what is waited for, lowered
while the processor is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from sternpost_checkpoint.adaptive.policy import Preference


class Shortage(StrEnum):
    """What the last save waited for."""

    NOTHING = "nothing"
    """It was done long before the next one came."""
    PROCESSOR = "cpu"
    STORE = "store"


@dataclass(frozen=True)
class StageTimes:
    """How a save went."""

    seconds: float
    """From its beginning until it was durable."""
    encode_seconds: float
    """Of all encoding threads together."""
    waited_for_encoder: float
    """How long the upload had nothing to send."""
    waited_for_store: float
    """How long the encoders had no room for what they had made, all threads together."""
    stored_bytes: int
    interval: float | None = None
    """Seconds since the save before this one; None for the first."""


DEFAULT_BANDWIDTH = 200e6
"""Bytes a second, until one was measured."""
MIN_BANDWIDTH, MAX_BANDWIDTH = 1e6, 20e9
START_PRICE = 3.0
MIN_PRICE, MAX_PRICE = 0.3, 30.0
STEP = 1.5
RELAXED_SHARE = 0.5
"""A save that takes less of the interval than this is short of nothing."""
NOTICEABLE_SHARE = 0.1
"""Of its duration, that a save must have waited for something to be short of it."""
_SMOOTHING = 0.5


@dataclass(frozen=True)
class Pressure:
    """What is known of the pipeline."""

    prefer: Preference = Preference.BALANCED
    processors: int = 1
    price: float = START_PRICE
    """Seconds of encoding that one second of upload is worth."""
    bandwidth: float = DEFAULT_BANDWIDTH
    """What the storage takes, bytes a second."""
    shortage: Shortage = Shortage.NOTHING

    @property
    def seconds_per_stored_byte(self) -> float:
        """What a stored byte costs, in seconds of one encoding thread."""
        if self.prefer is Preference.SIZE:
            return 1.0
        price = MIN_PRICE if self.prefer is Preference.SPEED else self.price
        return price * self.processors / self.bandwidth

    def observe(self, times: StageTimes) -> Pressure:
        """What is known after a save."""
        shortage = shortage_of(times, self.processors)
        if shortage is Shortage.STORE:
            price = min(self.price * STEP, MAX_PRICE)
        elif shortage is Shortage.PROCESSOR:
            price = max(self.price / STEP, MIN_PRICE)
        elif self.price > START_PRICE:
            price = max(self.price / STEP, START_PRICE)
        else:
            price = min(self.price * STEP, START_PRICE)
        return replace(self, price=price, bandwidth=self._bandwidth(times), shortage=shortage)

    def _bandwidth(self, times: StageTimes) -> float:
        # While the upload waits for the encoder it sends nothing: that says nothing of the storage.
        sending = times.seconds - times.waited_for_encoder
        if times.stored_bytes < 2**20 or sending <= 0:
            return self.bandwidth
        measured = min(max(times.stored_bytes / sending, MIN_BANDWIDTH), MAX_BANDWIDTH)
        return float(self.bandwidth**_SMOOTHING * measured ** (1 - _SMOOTHING))


def shortage_of(times: StageTimes, processors: int) -> Shortage:
    """What a save was short of: whichever side waited less for the other, if the time matters at all."""
    if times.interval is not None and times.seconds < RELAXED_SHARE * times.interval:
        return Shortage.NOTHING
    encoders = times.waited_for_store / max(processors, 1)
    noticeable = NOTICEABLE_SHARE * times.seconds
    if times.waited_for_encoder >= encoders:
        return Shortage.PROCESSOR if times.waited_for_encoder > noticeable else Shortage.NOTHING
    return Shortage.STORE if encoders > noticeable else Shortage.NOTHING
