"""What the pipeline is short of, and so what a stored byte is worth in seconds of encoding. Pure.

Encoding and upload overlap, so a save takes as long as the slower of them. Each tensor has a frontier of codecs, from fast and
large to slow and small; one price for a second of upload, the same for all tensors, picks a point on each, and the right price
is the one at which both take equally long. It is found as prices are: raised while the storage is what is waited for, lowered
while the processor is. Tensors are alike, so many of them change sides at one price, and the middle may not exist: once the price
has been on both sides, the better one is kept for a while before it is looked for again.
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
    sending: float
    """How long the storage was at work on what it had."""
    raw_bytes: int
    stored_bytes: int
    interval: float | None = None
    """Seconds since the save before this one; None for the first."""


DEFAULT_BANDWIDTH = 200e6
"""Bytes a second, until one was measured."""
MIN_BANDWIDTH, MAX_BANDWIDTH = 1e6, 500e6
"""Bytes a second. A storage that takes more is priced as if it took so much: its space costs something, and restores read it."""
START_PRICE = 3.0
MIN_PRICE, MAX_PRICE = 0.3, 30.0
SPEED_PRICE = 1.0
"""With `prefer: speed`: what costs next to nothing is still taken."""
STEP = 1.5
RELAXED_SHARE = 0.5
"""A save that takes less of the interval than this is short of nothing."""
NOTICEABLE_SHARE = 0.1
"""Of its duration, that a save must have waited for something to be short of it."""
HELD_SAVES = 12
CHANGED = 1.4
"""A save that takes so much longer than the price it was held for promised: things are not what they were."""
_SMOOTHING = 0.5


@dataclass(frozen=True)
class Best:
    """The best price lately, and what it gave."""

    price: float
    seconds_per_byte: float
    """Of state."""


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
    best: Best | None = None
    rising: bool | None = None
    """Which way the price went last."""
    held: int = 0
    """For how many more saves the best price is kept."""

    @property
    def seconds_per_stored_byte(self) -> float:
        """What a stored byte costs, in seconds of one encoding thread."""
        if self.prefer is Preference.SIZE:
            return 1.0
        price = SPEED_PRICE if self.prefer is Preference.SPEED else self.price
        return price * self.processors / self.bandwidth

    def observe(self, times: StageTimes) -> Pressure:
        """What is known after a save."""
        shortage = shortage_of(times, self.processors)
        known = replace(self, bandwidth=self._bandwidth(times), shortage=shortage)
        if shortage is Shortage.NOTHING:
            target = (
                max(self.price / STEP, START_PRICE) if self.price > START_PRICE else min(self.price * STEP, START_PRICE)
            )
            return replace(known, price=target, best=None, rising=None, held=0)
        now = Best(self.price, times.seconds / max(times.raw_bytes, 1))
        if self.held and self.best is not None:
            if now.seconds_per_byte <= CHANGED * self.best.seconds_per_byte:
                return replace(known, held=self.held - 1)
            return replace(known, best=None, rising=None, held=0)
        best = now if self.best is None or now.seconds_per_byte < self.best.seconds_per_byte else self.best
        rising = shortage is Shortage.STORE
        if self.rising is not None and rising != self.rising:
            return replace(known, price=best.price, best=best, rising=None, held=HELD_SAVES)
        price = min(self.price * STEP, MAX_PRICE) if rising else max(self.price / STEP, MIN_PRICE)
        if price == self.price:  # as far as it goes
            return replace(known, price=best.price, best=best, rising=None, held=HELD_SAVES)
        return replace(known, price=price, best=best, rising=rising)

    def _bandwidth(self, times: StageTimes) -> float:
        if times.stored_bytes < 2**20 or times.sending <= 0:
            return self.bandwidth
        measured = min(max(times.stored_bytes / times.sending, MIN_BANDWIDTH), MAX_BANDWIDTH)
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
