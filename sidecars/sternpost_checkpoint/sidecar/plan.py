"""From a state in shared memory to a plan: which codec for each tensor, against what, and what is kept for the next save."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sternpost_checkpoint.adaptive.chains import Decision, pays
from sternpost_checkpoint.adaptive.choice import RAW, Choice, choose, saved_by_deltas
from sternpost_checkpoint.adaptive.evidence import Evidence
from sternpost_checkpoint.adaptive.kinds import FLOATS, Kind, Role, roles_of, sample_positions
from sternpost_checkpoint.adaptive.policy import CodecPolicy, Exactness, Preference
from sternpost_checkpoint.adaptive.pressure import Pressure
from sternpost_checkpoint.codec.base import PIECE_BYTES, Beside
from sternpost_checkpoint.format.dtypes import ITEM_BYTES
from sternpost_checkpoint.format.table import TensorSpec
from sternpost_checkpoint.sidecar.bases import KeptState, worth_keeping
from sternpost_checkpoint.sidecar.trials import Inputs, TrialBook

NEARLY = 1.06
"""With `prefer: size`, codecs that a sample puts so close to the best are all tried on the whole tensor."""


@dataclass(frozen=True)
class Planned:
    """One tensor of the shard."""

    number: int
    """Index into the table."""
    inputs: Inputs
    evidence: Evidence
    choice: Choice
    delta: bool
    """Whether it may build on the base, if the choice turns out not to fit."""
    rivals: tuple[str, ...] = ()
    """Codecs that may turn out smaller."""

    @property
    def cost(self) -> int:
        """Bytes of memory that encoding it takes."""
        size = self.inputs.spec.bytes
        if self.choice.codec == RAW:
            return min(size, 2 * PIECE_BYTES)
        return min(size, int(size * self.choice.share * 1.25)) * (1 + len(self.rivals)) + min(size, PIECE_BYTES)


@dataclass(frozen=True)
class Plan:
    """All tensors of this rank's shard, in its order."""

    units: list[tuple[Planned, ...]]
    """What is encoded together: a tensor by itself, or a first moment with its second."""
    keep: list[TensorSpec]
    """What the next save may be encoded against."""
    decision: Decision
    """On deltas."""


def make_plan(  # the parts of a save
    specs: Sequence[TensorSpec],
    payload: memoryview,
    *,
    base: KeptState | None,
    may_build: Decision,
    policy: CodecPolicy,
    pressure: Pressure,
    book: TrialBook,
    keep_bytes: int,
    touch: Callable[[], None] = lambda: None,
) -> Plan:
    """Choose for every stored tensor. Reads a part of each; `touch` is called while it does.

    `keep_bytes`: how much of the state may be kept in memory for the next save, 0: nothing.
    """
    stored = [number for number, spec in enumerate(specs) if spec.stored]
    roles = roles_of(specs, stored, _samples(specs, stored, payload))
    pairs = _moments(roles, policy)
    inputs = {
        number: _inputs(specs, number, roles[number], payload, base if may_build.delta else None) for number in stored
    }
    evidences: dict[int, Evidence] = {}
    for number in stored:
        touch()
        # Also of moments: where the bound does not hold, they are stored bit for bit.
        evidences[number] = book.evidence(inputs[number])
    book.forget_others({specs[number].name for number in stored})
    decision = may_build
    if may_build.delta:
        exact = [found for number, found in evidences.items() if number not in {*pairs.keys(), *pairs.values()}]
        decision = pays(*saved_by_deltas(exact, policy, pressure))
        if decision.delta:
            decision = replace(decision, reason=f"{may_build.reason}; {decision.reason}")

    def planned(number: int) -> Planned:
        choice = choose(evidences[number], policy, pressure, delta=decision.delta)
        rivals = _rivals(evidences[number], choice, policy, delta=decision.delta)
        return Planned(number, inputs[number], evidences[number], choice, decision.delta, rivals)

    second = set(pairs.values())
    units: list[tuple[Planned, ...]] = [
        (planned(number), planned(pairs[number])) if number in pairs else (planned(number),)
        for number in stored
        if number not in second  # that one comes with its first moment
    ]
    exactly = policy.exactness is Exactness.LOSSLESS
    keep = worth_keeping(specs, roles, keep_bytes, moments=exactly) if policy.max_chain > 0 else []
    return Plan(units, keep, decision)


def cost_of(units: Sequence[Sequence[Planned]]) -> int:
    """Bytes of memory that encoding units, one after the other, takes."""
    # Moments come in pairs, which are encoded and decoded whole, to measure what that does to the update.
    return sum(sum(item.inputs.spec.bytes for item in unit) if len(unit) == 2 else unit[0].cost for unit in units)


def grouped(units: Sequence[tuple[Planned, ...]], size: int) -> list[list[tuple[Planned, ...]]]:
    """Consecutive units together, as long as they are no more than `size` raw bytes."""
    groups: list[list[tuple[Planned, ...]]] = []
    room = 0
    for unit in units:
        raw = sum(item.inputs.spec.bytes for item in unit)
        if not groups or raw > room:
            groups.append([])
            room = size
        groups[-1].append(unit)
        room -= raw
    return groups


def _samples(
    specs: Sequence[TensorSpec], stored: Sequence[int], payload: memoryview
) -> dict[int, npt.NDArray[np.uint8]]:
    found = {}
    for number in stored:
        spec = specs[number]
        if spec.dtype in FLOATS and spec.bytes:
            width = ITEM_BYTES[spec.dtype]
            elements = np.frombuffer(payload[spec.offset : spec.offset + spec.bytes], dtype=np.uint8).reshape(-1, width)
            found[number] = elements[sample_positions(len(elements))].reshape(-1)
    return found


def _moments(roles: dict[int, Role], policy: CodecPolicy) -> dict[int, int]:
    """First moments and their second ones, where they need not be exact."""
    if policy.exactness is Exactness.LOSSLESS:
        return {}
    return {
        number: role.partner
        for number, role in roles.items()
        if role.kind is Kind.FIRST_MOMENT and role.partner is not None
    }


def _inputs(
    specs: Sequence[TensorSpec], number: int, role: Role, payload: memoryview, base: KeptState | None
) -> Inputs:
    spec = specs[number]
    raw = payload[spec.offset : spec.offset + spec.bytes]
    kept = base.tensors.get(spec.name) if base is not None else None
    fitting = kept if kept is not None and kept.fits(spec) else None
    companion = specs[role.companion] if role.companion is not None else None
    beside = Beside(
        base=fitting.raw if fitting else None,
        companion=payload[companion.offset : companion.offset + companion.bytes] if companion else None,
        companion_dtype=companion.dtype if companion else None,
    )
    return Inputs(spec, role, raw, beside, base_behind=fitting.behind if fitting else 0.0)


def _rivals(evidence: Evidence, choice: Choice, policy: CodecPolicy, *, delta: bool) -> tuple[str, ...]:
    if policy.prefer is not Preference.SIZE or choice.codec == RAW:
        return ()
    near = [
        trial.codec
        for trial in evidence.trials
        if trial.codec != choice.codec and trial.share <= choice.share * NEARLY and (delta or not trial.delta)
    ]
    return tuple(near)
