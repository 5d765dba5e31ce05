"""What explains what: a fault has consequences that other detectors see, and only the fault is worth telling. Pure."""

from __future__ import annotations

from sternpost_eagle_eye.detect.base import Finding, Kind

_EXPLAINS: dict[Kind, frozenset[Kind]] = {
    "hardware": frozenset({"worker-gone", "hang", "slow", "storage-stall", "data-stall", "outlier"}),
    "worker-gone": frozenset({"hang", "slow", "storage-stall", "data-stall", "outlier"}),
    "storage-stall": frozenset({"worker-gone", "hang", "data-stall", "outlier", "slow"}),
    "hang": frozenset({"worker-gone", "slow", "data-stall", "outlier"}),
    "slow": frozenset({"data-stall", "outlier"}),
    "data-stall": frozenset({"outlier", "slow"}),
    "loss": frozenset(),
    "outlier": frozenset(),
}
"""What a standing fault of each kind makes others look like."""
_ORDER: tuple[Kind, ...] = ("hardware", "worker-gone", "storage-stall", "hang", "slow", "data-stall", "loss", "outlier")
EXPLAINED_SECONDS = 60.0
"""So long after it was last seen a fault explains others, and for as long as the job made no step since."""
BACK_SECONDS = 5.0
"""The same for a worker that was gone: one that is back, on a starved machine for instance, was not lost."""
UNSURE = 0.5
"""A finding of so little confidence explains nothing."""


class Fusion:
    """Remembers which faults stand."""

    def __init__(self) -> None:
        self._seen: dict[tuple[Kind, int | None], tuple[float, float]] = {}
        """When first and last."""
        self._now = 0.0

    def told(self, found: list[Finding], now: float, progress_at: float) -> list[Finding]:
        """Those that no earlier or graver finding explains. `progress_at`: when the job last made a step."""
        self._seen = {
            key: seen
            for key, seen in self._seen.items()
            if now - seen[1] <= (BACK_SECONDS if key[0] == "worker-gone" else EXPLAINED_SECONDS)
            or progress_at <= seen[1]
        }
        self._now = now
        told: list[Finding] = []
        for finding in sorted(found, key=lambda f: _ORDER.index(f.kind)):
            key = finding.kind, finding.worker
            if self._explained(finding, key):
                continue
            told.append(finding)
            if finding.confidence > UNSURE or finding.kind in ("hang", "slow"):
                first = self._seen.get(key, (now, now))[0]
                self._seen[key] = first, now
        return told

    def _explained(self, finding: Finding, key: tuple[Kind, int | None]) -> bool:
        own = self._seen.get(key)
        for other, (first, _) in self._seen.items():
            if other == key or (own is not None and own[0] <= first):
                continue  # it was there before
            # Peers of a lost worker die of it; and a hang is one, whoever is blamed for it first.
            again = other[0] == finding.kind and finding.kind in {"worker-gone", "hang"} and first < self._now
            if finding.kind in _EXPLAINS[other[0]] or again:
                return True
        return False
