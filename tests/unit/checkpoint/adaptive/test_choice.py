"""Properties of the choice of a codec."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_checkpoint.adaptive.choice import SIMILAR, choose, price, saved_by_deltas, stored_share
from sternpost_checkpoint.adaptive.evidence import Evidence, Trial
from sternpost_checkpoint.adaptive.kinds import Kind
from sternpost_checkpoint.adaptive.policy import ADAPTIVE_ERROR, COMPACT_ERROR, CodecPolicy, Exactness, Preference
from sternpost_checkpoint.adaptive.pressure import Pressure, Shortage
from sternpost_checkpoint.format.documents import MAX_REASON

trials = st.builds(
    Trial,
    codec=st.sampled_from(["zstd-planes", "mask", "mask-zstd", "xor-planes", "low-bits", "float-ans"]),
    share=st.floats(0.001, 1.2),
    bytes_per_second=st.floats(1e6, 1e10),
    delta=st.booleans(),
    companion=st.booleans(),
)
evidences = st.builds(
    Evidence,
    name=st.just("model/w"),
    bytes=st.integers(0, 2**40),
    dtype=st.just("bfloat16"),
    kind=st.sampled_from(Kind),
    trials=st.lists(trials, max_size=6, unique_by=lambda trial: trial.codec).map(tuple),
    changed=st.none() | st.floats(0, 1),
    entropy=st.none() | st.floats(0, 8),
    chain_share=st.floats(0, 10),
)
pressures = st.builds(
    Pressure,
    prefer=st.sampled_from(Preference),
    processors=st.integers(1, 8),
    price=st.floats(0.3, 30),
    bandwidth=st.floats(1e6, 500e6),
    shortage=st.sampled_from(Shortage),
)


def policy_of(pressure: Pressure) -> CodecPolicy:
    return CodecPolicy(prefer=pressure.prefer)


@settings(max_examples=300)
@given(evidences, pressures, st.booleans())
def test_the_choice_is_one_of_the_trials_and_says_why(evidence: Evidence, pressure: Pressure, delta: bool) -> None:
    choice = choose(evidence, policy_of(pressure), pressure, delta=delta)
    assert delta or not choice.delta
    assert 0 < len(choice.reason) <= MAX_REASON
    if choice.codec == "raw":
        assert choice.needs_neither
        return
    found = next(trial for trial in evidence.trials if trial.codec == choice.codec)
    assert (found.share, found.delta, found.companion) == (choice.share, choice.delta, choice.companion)
    assert choice.share <= 0.98


@settings(max_examples=300)
@given(evidences, pressures, st.booleans())
def test_nothing_offered_is_cheaper(evidence: Evidence, pressure: Pressure, delta: bool) -> None:
    choice = choose(evidence, policy_of(pressure), pressure, delta=delta)
    chosen = Trial(choice.codec, choice.share, 5e9, choice.delta)
    chosen = next((trial for trial in evidence.trials if trial.codec == choice.codec and choice.codec != "raw"), chosen)
    for trial in evidence.trials:
        if (trial.delta and not delta) or trial.share > 0.98:
            continue
        if pressure.prefer is Preference.SIZE:
            assert stored_share(chosen, evidence) <= stored_share(trial, evidence) * SIMILAR
        else:
            assert price(chosen, evidence, pressure) <= price(trial, evidence, pressure)


@settings(max_examples=200)
@given(evidences, pressures, st.floats(1.0, 50.0))
def test_a_dearer_byte_never_makes_a_tensor_larger(evidence: Evidence, pressure: Pressure, factor: float) -> None:
    pressure = replace(pressure, prefer=Preference.BALANCED)
    policy = CodecPolicy()
    now = choose(evidence, policy, pressure, delta=True)
    dearer = choose(evidence, policy, replace(pressure, price=pressure.price * factor), delta=True)
    behind = 0.02 * evidence.chain_share
    assert dearer.share + behind * dearer.delta <= (now.share + behind * now.delta) * (1 + 1e-9)


@settings(max_examples=200)
@given(st.lists(evidences, max_size=5), pressures)
def test_deltas_never_save_more_than_there_is(found: list[Evidence], pressure: Pressure) -> None:
    without, saved = saved_by_deltas(found, policy_of(pressure), pressure)
    assert saved <= without + 1e-6 * without
    if not any(trial.delta for evidence in found for trial in evidence.trials):
        assert saved == 0


def test_what_is_chosen_where() -> None:
    slow = Trial("xor-planes", 0.04, 450e6, delta=True)
    fast = Trial("mask", 0.1, 2.5e9, delta=True)
    plain = Trial("float-ans", 0.67, 500e6)
    weight = Evidence("model/w", 2**24, "bfloat16", Kind.WEIGHT, (slow, fast, plain), 0.034, 5.3)

    def chosen(pressure: Pressure, *, delta: bool = True) -> str:
        return choose(weight, policy_of(pressure), pressure, delta=delta).codec

    assert chosen(Pressure(Preference.SIZE)) == "xor-planes"
    assert chosen(Pressure(Preference.SIZE), delta=False) == "float-ans"
    assert chosen(Pressure(Preference.SPEED)) == "mask"
    assert chosen(Pressure(Preference.SPEED), delta=False) == "raw"
    assert chosen(Pressure(bandwidth=20e6)) == "xor-planes"
    assert chosen(Pressure(bandwidth=500e6)) == "mask"
    reason = choose(weight, CodecPolicy(), Pressure(bandwidth=20e6, shortage=Shortage.STORE), delta=True).reason
    assert reason == "weight: about 25.0x, p=0.034, 5.3 bits/byte, short of store"


@pytest.mark.parametrize(
    ("exactness", "given", "expected"),
    [
        (Exactness.ADAPTIVE, None, ADAPTIVE_ERROR),
        (Exactness.COMPACT, None, COMPACT_ERROR),
        (Exactness.COMPACT, 0.1, 0.1),
    ],
)
def test_the_bound_follows_the_policy(exactness: Exactness, given: float | None, expected: float) -> None:
    assert CodecPolicy.of(exactness, Preference.BALANCED, given).max_update_error == expected
