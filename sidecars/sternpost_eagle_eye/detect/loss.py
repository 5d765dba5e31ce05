"""A loss or gradient that is no number, or several times what it was. Every rank sees it: no node is ever blamed."""

from __future__ import annotations

import math
from collections import deque
from statistics import median

from sternpost_eagle_eye.detect.base import Finding, names
from sternpost_eagle_eye.track import JobTrack

SPIKE = 5.0
"""Times the recent median, as published."""
NORM_SPIKE = 10.0
"""Norms of gradients jump by nature."""
SPIKE_LOOKS = 3
"""So often, at steps of their own: one bad batch is no divergence."""
KEPT = 120
ENOUGH = 15
SPREADS = 8.0
RENEW = 10
HOLD_SECONDS = 600.0


class LossDetector:
    """Follows the median worker's loss and gradient norm."""

    def __init__(self) -> None:
        self._usual: dict[str, deque[float]] = {"loss": deque(maxlen=KEPT), "grad_norm": deque(maxlen=KEPT)}
        self._high: dict[str, int] = {"loss": 0, "grad_norm": 0}
        self._new = {"loss": 0, "grad_norm": 0}
        self._middles: dict[str, tuple[float, float]] = {}
        self._step: int | None = None
        self._bad_since: float | None = None
        self._found: tuple[float, Finding] | None = None

    def evaluate(self, job: JobTrack, now: float) -> list[Finding]:
        """At most one finding."""
        finding = self._look(job, now)
        if finding is not None:
            first = self._found[1] if self._found is not None else finding
            self._found = now, first
        if self._found is None or now - self._found[0] > HOLD_SECONDS:
            return []
        return [self._found[1]]

    def _look(self, job: JobTrack, now: float) -> Finding | None:
        bad: dict[str, set[int]] = {"loss": set(), "grad_norm": set()}
        values: dict[str, list[float]] = {"loss": [], "grad_norm": []}
        steps: list[int] = []
        for track in job.workers:
            for rank in track.ranks.values():
                known = rank.known
                if known is None or known.step is None:
                    continue
                steps.append(known.step)
                for name, value in (("loss", known.loss), ("grad_norm", known.grad_norm)):
                    if value is None:
                        continue
                    if math.isfinite(value):
                        values[name].append(value)
                    else:
                        bad[name].add(known.rank)
        words = "; ".join(f"{name} is no finite number on ranks {names(ranks)}" for name, ranks in bad.items() if ranks)
        if words:
            self._bad_since = now if self._bad_since is None else self._bad_since
            if now - self._bad_since >= 1.0:  # one page may have been read in the middle of something
                return Finding("loss", None, 0.98, False, f"{words}, at step {max(steps)}")
        else:
            self._bad_since = None
        if not steps or max(steps) == self._step:
            return None
        self._step = max(steps)
        return self._spike("loss", values["loss"], SPIKE) or self._spike("grad_norm", values["grad_norm"], NORM_SPIKE)

    def _spike(self, name: str, values: list[float], times: float) -> Finding | None:
        if not values:
            return None
        value, usual = median(values), self._usual[name]
        if len(usual) >= ENOUGH:
            middle, spread = self._middle(name)
            if value > middle + max((times - 1) * abs(middle), SPREADS * spread):
                self._high[name] += 1
                if self._high[name] >= SPIKE_LOOKS:
                    return Finding(
                        "loss", None, 0.9, False, f"{name} is {value:.4g} against a recent median of {middle:.4g}"
                    )
                return None
        self._high[name] = 0
        usual.append(value)
        self._new[name] += 1
        return None

    def _middle(self, name: str) -> tuple[float, float]:
        """Median and spread of what was usual, looked at anew now and then: they move slowly."""
        if self._new[name] >= RENEW or name not in self._middles:
            usual = self._usual[name]
            middle = median(usual)
            self._middles[name] = middle, 1.4826 * median(abs(each - middle) for each in usual)
            self._new[name] = 0
        return self._middles[name]
