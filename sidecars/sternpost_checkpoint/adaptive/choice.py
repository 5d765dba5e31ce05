"""From the evidence to a codec, and the reason for it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sternpost_checkpoint.adaptive.evidence import Evidence, Trial
from sternpost_checkpoint.adaptive.policy import CodecPolicy, Preference
from sternpost_checkpoint.adaptive.pressure import Pressure, Shortage
from sternpost_checkpoint.format.documents import MAX_REASON

RAW = "raw"
RAW_BYTES_PER_SECOND = 5e9
WORTH_SHARE = 0.98
"""What compresses to no less than this stays raw: reading it back is then a copy."""
SIMILAR = 1.005
"""With `prefer: size`, codecs whose sizes differ by less are equal, and the faster one is taken."""
READS_PER_SAVE = 0.02
"""A restore for every fifty saves: what each byte behind a delta costs then."""


@dataclass(frozen=True)
class Choice:
    """How to store a tensor."""

    codec: str
    delta: bool
    companion: bool
    share: float
    """Expected stored bytes for each raw byte."""
    reason: str

    @property
    def needs_neither(self) -> bool:
        """It can be decoded by itself."""
        return not self.delta and not self.companion


_RAW_TRIAL = Trial(RAW, 1.0, RAW_BYTES_PER_SECOND)


def choose(evidence: Evidence, policy: CodecPolicy, pressure: Pressure, *, delta: bool) -> Choice:
    """The lossless codec for one tensor; `delta`: whether it may build on the base."""
    trials = [
        trial
        for trial in evidence.trials
        if trial.codec != RAW and trial.share <= WORTH_SHARE and (delta or not trial.delta)
    ]
    best = cheapest([*trials, _RAW_TRIAL], evidence, policy, pressure)
    return Choice(best.codec, best.delta, best.companion, best.share, _reason(best, evidence, pressure))


def cheapest(trials: Iterable[Trial], evidence: Evidence, policy: CodecPolicy, pressure: Pressure) -> Trial:
    """The trial with the lowest price; with `prefer: size` the smallest, the fastest of those that are as small."""
    found = list(trials)
    if policy.prefer is Preference.SIZE:
        smallest = min(stored_share(trial, evidence) for trial in found)
        found = [trial for trial in found if stored_share(trial, evidence) <= smallest * SIMILAR]
        return max(found, key=lambda trial: (trial.bytes_per_second, trial.codec))
    return min(found, key=lambda trial: (price(trial, evidence, pressure), trial.codec))


def stored_share(trial: Trial, evidence: Evidence) -> float:
    """Stored bytes for each raw byte; with a delta's part of what lies behind it."""
    return trial.share + (READS_PER_SAVE * evidence.chain_share if trial.delta else 0.0)


def price(trial: Trial, evidence: Evidence, pressure: Pressure) -> float:
    """Seconds of one thread for each raw byte, its stored bytes counted at what they are worth."""
    return 1 / trial.bytes_per_second + stored_share(trial, evidence) * pressure.seconds_per_stored_byte


def saved_by_deltas(evidences: Iterable[Evidence], policy: CodecPolicy, pressure: Pressure) -> tuple[float, float]:
    """(stored bytes without deltas, those that deltas save), both expected, over all tensors of a rank."""
    without = saved = 0.0
    for evidence in evidences:
        alone = choose(evidence, policy, pressure, delta=False)
        best = choose(evidence, policy, pressure, delta=True)
        without += alone.share * evidence.bytes
        if best.delta:
            saved += (alone.share - best.share) * evidence.bytes
    return without, saved


def _reason(best: Trial, evidence: Evidence, pressure: Pressure) -> str:
    words = [f"about {1 / max(best.share, 1e-6):.1f}x"]
    if evidence.changed is not None:
        words.append(f"p={evidence.changed:.3g}")
    if evidence.entropy is not None:
        words.append(f"{evidence.entropy:.1f} bits/byte")
    if best.codec == RAW:
        words = ["too small to gain" if not evidence.trials else "nothing gains", *words[1:]]
    if pressure.prefer is not Preference.BALANCED:
        words.append(f"prefer {pressure.prefer}")
    elif pressure.shortage is not Shortage.NOTHING:
        words.append(f"short of {pressure.shortage}")
    return f"{evidence.kind}: {', '.join(words)}"[:MAX_REASON]
