"""Trying the codecs on a sample of each tensor, and remembering what came of it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace

import numpy as np

from sternpost_checkpoint.adaptive.choice import RAW
from sternpost_checkpoint.adaptive.evidence import Evidence, Trial
from sternpost_checkpoint.adaptive.kinds import Kind, Role
from sternpost_checkpoint.codec.base import ALONE, Beside, NotEncodable, by_name, names
from sternpost_checkpoint.format.table import TensorSpec
from sternpost_checkpoint.sidecar.samples import Sample, changed_share, entropy_bits, sample_of

SMALL_BYTES = 1024
"""Below it, compression is not worth its headers."""
REMEMBERED_SAVES = 8
"""After so many saves the codecs are tried again, even if the changed share stays the same."""
SIMILAR_CHANGE = 0.15
"""The codecs are tried again when the changed share has changed by more than this, relative,"""
NEGLIGIBLE_CHANGE = 0.005
"""and by more than this."""
MASK_LIMIT = 0.9
"""A mask of more changed elements than this does not pay."""
_SMOOTHING = 0.7

PRIOR_SPEEDS = {
    "raw": 5e9,
    "zstd-planes": 400e6,
    "mask": 3e9,
    "mask-zstd": 600e6,
    "mask-ans": 1.2e9,
    "xor-planes": 450e6,
    "low-bits": 1.2e9,
    "float-ans": 700e6,
    "diff-ans": 400e6,
}
"""Raw bytes a second of one thread, until measured."""
UNKNOWN_SPEED = 300e6
OBSERVED_BYTES = 2**19
MAX_OFF = 3.0
"""So many times faster or slower than its prior, beside the others, can a codec be."""


@dataclass
class Inputs:
    """One tensor, and what it may be encoded against."""

    spec: TensorSpec
    role: Role
    raw: memoryview
    beside: Beside = ALONE
    base_behind: float = 0.0
    """Stored bytes that must be read to decode the base."""

    def sampled(self, sample: Sample) -> Inputs:
        """The same elements of all of them."""
        base, companion, dtype = self.beside.base, self.beside.companion, self.beside.companion_dtype
        beside = Beside(
            base=sample.of(base, self.spec.dtype) if base is not None else None,
            companion=sample.of(companion, dtype) if companion is not None and dtype is not None else None,
            companion_dtype=dtype,
        )
        return replace(self, raw=sample.of(self.raw, self.spec.dtype), beside=beside)


class Speeds:
    """How fast each codec is here. For several threads.

    A processor that is slow, or busy with others, is so for all codecs: what one of them shows of it counts for all. Otherwise
    those that were never used would look better and better beside those that were.
    """

    def __init__(self) -> None:
        self._machine = 1.0
        """Of the prior speeds, that this machine reaches at present."""
        self._own: dict[tuple[str, str, int], float] = {}
        """What is left of it for a codec, dtype and p: how far its prior is off."""
        self._lock = threading.Lock()

    def of(self, codec: str, dtype: str, changed: float | None) -> float:
        """Raw bytes that a thread encodes in a second."""
        prior = PRIOR_SPEEDS.get(codec, UNKNOWN_SPEED)
        return prior * self._machine * self._own.get(self._key(codec, dtype, changed), 1.0)

    def observe(self, codec: str, dtype: str, changed: float | None, size: int, seconds: float) -> None:
        """Learn from a whole tensor; small ones say too little."""
        if size < OBSERVED_BYTES or seconds <= 0:
            return
        key = self._key(codec, dtype, changed)
        with self._lock:
            ratio = size / seconds / PRIOR_SPEEDS.get(codec, UNKNOWN_SPEED)
            expected = self._machine * self._own.get(key, 1.0)
            # A thread that lost the processor for a while was not slow: one bad moment must not count in full.
            ratio = min(max(ratio, expected / 4), expected * 4)
            self._machine = self._machine**_SMOOTHING * ratio ** (1 - _SMOOTHING)
            own = self._own.get(key, 1.0) ** _SMOOTHING * (ratio / self._machine) ** (1 - _SMOOTHING)
            self._own[key] = min(max(own, 1 / MAX_OFF), MAX_OFF)

    @staticmethod
    def _key(codec: str, dtype: str, changed: float | None) -> tuple[str, str, int]:
        return codec, dtype, 0 if changed is None else 1 + int(min(changed, 0.999) * 5)


@dataclass
class _Memo:
    """What was found for a tensor, and when."""

    shape: tuple[int, ...]
    dtype: str
    bases: tuple[bool, bool]
    changed: float | None
    entropy: float
    shares: dict[str, float]
    age: int = 0


@dataclass
class TrialBook:
    """The evidence for each tensor of a rank. One thread uses it, but for `speeds`."""

    speeds: Speeds = field(default_factory=Speeds)
    thorough: bool = False
    """Larger samples, and nothing remembered."""
    _memos: dict[str, _Memo] = field(default_factory=dict)

    def evidence(self, inputs: Inputs) -> Evidence:
        """Measure one tensor, as far as what is remembered does not do."""
        spec = inputs.spec
        plain = Evidence(spec.name, spec.bytes, spec.dtype, inputs.role.kind)
        if spec.bytes < SMALL_BYTES:
            return plain
        cut = inputs.sampled(sample_of(spec.bytes, spec.dtype, thorough=self.thorough))
        changed = changed_share(cut.raw, cut.beside.base, spec.dtype) if cut.beside.base is not None else None
        memo = self._memos.get(spec.name)
        if memo is None or self.thorough or not _still_true(memo, inputs, changed):
            memo = _Memo(
                spec.shape,
                spec.dtype,
                (inputs.beside.base is not None, inputs.beside.companion is not None),
                changed,
                entropy_bits(cut.raw, spec.dtype),
                _tried(cut, changed),
            )
            self._memos[spec.name] = memo
        memo.age += 1
        trials = [
            Trial(
                name,
                share,
                self.speeds.of(name, spec.dtype, changed),
                delta=by_name(name).needs_base,
                companion=by_name(name).needs_companion,
            )
            for name, share in memo.shares.items()
        ]
        return replace(
            plain,
            trials=tuple(trials),
            changed=changed,
            entropy=memo.entropy,
            chain_share=inputs.base_behind / spec.bytes,
        )

    def learn(self, name: str, codec: str, share: float) -> None:
        """The whole tensor came to this share; better than any sample could tell."""
        memo = self._memos.get(name)
        if memo is not None and codec in memo.shares:
            memo.shares[codec] = share

    def forget_others(self, names_kept: set[str]) -> None:
        """Forget the tensors that are not in the state any more."""
        for name in self._memos.keys() - names_kept:
            del self._memos[name]


def _still_true(memo: _Memo, inputs: Inputs, changed: float | None) -> bool:
    bases = (inputs.beside.base is not None, inputs.beside.companion is not None)
    if (memo.shape, memo.dtype, memo.bases) != (inputs.spec.shape, inputs.spec.dtype, bases):
        return False
    if memo.age >= REMEMBERED_SAVES or (memo.changed is None) != (changed is None):
        return False
    if changed is None or memo.changed is None:
        return True
    return abs(changed - memo.changed) <= max(SIMILAR_CHANGE * memo.changed, NEGLIGIBLE_CHANGE)


def _tried(cut: Inputs, changed: float | None) -> dict[str, float]:
    """Stored bytes for each raw byte of the sample, for every lossless codec that takes it."""
    shares = {}
    for name in names():
        codec = by_name(name)
        if name == RAW or not codec.lossless:
            continue
        if not cut.beside.suffices(codec):
            continue
        if name.startswith("mask") and (changed or 0.0) > MASK_LIMIT:
            continue
        try:
            size = encoded_bytes(name, cut)
        except NotEncodable:
            continue
        shares[name] = size / len(cut.raw)
    return shares


def warm_up() -> None:
    """Try every codec once, so that none is loaded and compiled inside of the first save."""
    elements = np.arange(SMALL_BYTES, dtype=np.uint32)
    halves = (elements % 977).astype(np.uint16)
    exact = (halves.astype(np.uint32) << 16) + elements % 7
    for dtype, raw, companion in (("bfloat16", halves, None), ("float32", exact, halves)):
        size = raw.nbytes
        spec = TensorSpec("model/warm", "model", dtype, raw.shape, 0, size, replicated=False, stored=True)
        base = (raw ^ (elements % 3 == 0)).astype(raw.dtype)
        beside = Beside(base.data.cast("B"), companion.data.cast("B") if companion is not None else None, "bfloat16")
        TrialBook().evidence(Inputs(spec, Role(Kind.WEIGHT), raw.data.cast("B"), beside))


def encoded_bytes(name: str, inputs: Inputs) -> int:
    """Stored bytes of one codec. Raises NotEncodable."""
    codec = by_name(name)
    pieces = codec.encode(inputs.raw, inputs.spec.dtype, inputs.beside.for_codec(codec))
    return sum(memoryview(piece).nbytes for piece in pieces)
