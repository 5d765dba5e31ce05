"""The price of a second of upload, in a simulated pipeline: it finds the bottleneck and settles."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_checkpoint.adaptive.choice import choose
from sternpost_checkpoint.adaptive.evidence import Evidence, Trial
from sternpost_checkpoint.adaptive.kinds import Kind
from sternpost_checkpoint.adaptive.policy import CodecPolicy, Preference
from sternpost_checkpoint.adaptive.pressure import (
    MAX_BANDWIDTH,
    MAX_PRICE,
    MIN_BANDWIDTH,
    MIN_PRICE,
    START_PRICE,
    Pressure,
    Shortage,
    StageTimes,
    shortage_of,
)

SIZE = 10**9
SPEEDS = {"raw": 5e9, "mask": 2.5e9, "float-ans": 700e6, "xor-planes": 300e6}


def state() -> list[Evidence]:
    """Weights that deltas make small, and moments that nothing does much for."""
    weight = (Trial("mask", 0.3, SPEEDS["mask"]), Trial("xor-planes", 0.12, SPEEDS["xor-planes"]))
    rest = (Trial("float-ans", 0.8, SPEEDS["float-ans"]), Trial("xor-planes", 0.77, SPEEDS["xor-planes"]))
    kinds = [(Kind.WEIGHT, weight)] * 20 + [(Kind.OTHER, rest)] * 20
    return [Evidence(str(number), SIZE // 40, "f", kind, trials) for number, (kind, trials) in enumerate(kinds)]


def save(pressure: Pressure, bandwidth: float, interval: float, found: Sequence[Evidence]) -> StageTimes:
    """What a save takes: encoding and upload side by side, the longer one decides."""
    choices = [choose(evidence, CodecPolicy(), pressure, delta=True) for evidence in found]
    encode = sum(evidence.bytes / SPEEDS[choice.codec] for evidence, choice in zip(found, choices, strict=True))
    stored = sum(evidence.bytes * choice.share for evidence, choice in zip(found, choices, strict=True))
    upload = stored / bandwidth
    seconds = max(encode / pressure.processors, upload)
    waited = max(upload - encode / pressure.processors, 0) * pressure.processors
    return StageTimes(seconds, encode, seconds - upload, waited, upload, SIZE, int(stored), interval)


def settle(bandwidth: float, interval: float, processors: int = 1) -> tuple[Pressure, list[StageTimes]]:
    pressure, times = Pressure(processors=processors), []
    for _ in range(40):
        times.append(save(pressure, bandwidth, interval, state()))
        pressure = pressure.observe(times[-1])
    return pressure, times


@pytest.mark.parametrize("bandwidth", [30e6, 100e6, 200e6, 500e6])
def test_it_gets_close_to_the_best_that_any_price_gives(bandwidth: float) -> None:
    _, times = settle(bandwidth, interval=1.0)
    best = min(
        save(Pressure(price=MIN_PRICE * 1.2**step, bandwidth=bandwidth), bandwidth, 1.0, state()).seconds
        for step in range(40)
    )
    # It looks to both sides again and again, so the mean counts.
    assert sum(time.seconds for time in times[20:]) / 20 <= 1.25 * best


def test_with_time_to_spare_it_is_short_of_nothing() -> None:
    pressure, _ = settle(200e6, interval=1000.0)
    assert pressure.shortage is Shortage.NOTHING
    assert pressure.price == pytest.approx(START_PRICE)


times_ = st.builds(
    StageTimes,
    seconds=st.floats(0, 1e4),
    encode_seconds=st.floats(0, 1e4),
    waited_for_encoder=st.floats(0, 1e4),
    waited_for_store=st.floats(0, 1e4),
    sending=st.floats(0, 1e4),
    raw_bytes=st.integers(0, 2**46),
    stored_bytes=st.integers(0, 2**45),
    interval=st.none() | st.floats(1e-3, 1e5),
)


@settings(max_examples=200)
@given(st.lists(times_, max_size=30), st.integers(1, 8))
def test_it_stays_within_bounds_whatever_it_is_told(found: list[StageTimes], processors: int) -> None:
    pressure = Pressure(processors=processors)
    for times in found:
        pressure = pressure.observe(times)
        assert MIN_PRICE <= pressure.price <= MAX_PRICE
        assert MIN_BANDWIDTH <= pressure.bandwidth <= MAX_BANDWIDTH
        assert pressure.seconds_per_stored_byte > 0


@settings(max_examples=200)
@given(times_, st.integers(1, 8))
def test_a_shortage_is_of_what_was_waited_for(times: StageTimes, processors: int) -> None:
    shortage = shortage_of(times, processors)
    if shortage is Shortage.STORE:
        assert times.waited_for_store > 0
    if shortage is Shortage.PROCESSOR:
        assert times.waited_for_encoder > 0
    if times.interval is not None and times.seconds < 0.5 * times.interval:
        assert shortage is Shortage.NOTHING


def test_preferences_do_not_follow_the_market() -> None:
    for prefer in (Preference.SIZE, Preference.SPEED):
        before = Pressure(prefer).seconds_per_stored_byte
        after = Pressure(prefer, price=MAX_PRICE).seconds_per_stored_byte
        assert before == after
