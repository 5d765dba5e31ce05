"""A node that differs from all others, and from its own past, in several ways for minutes, while nothing else explains it."""

from __future__ import annotations

from sternpost_eagle_eye.detect.base import Finding
from sternpost_eagle_eye.features import FAMILY, Family
from sternpost_eagle_eye.track import JobTrack

PERSISTENCE_SECONDS = 240.0
"""As published: the same machine, for four minutes."""
FAMILIES: tuple[Family, ...] = ("thermal", "cpu", "network", "disk", "memory")
LEAST_FAMILIES = 2
STRENGTH = 10.0
LEAST_PEERS = 5


class OutlierDetector:
    """Only ever suspects: that a node is different is no proof that it is sick."""

    def evaluate(self, job: JobTrack, now: float) -> list[Finding]:
        """One finding for the node that stands out most, if it does so alone."""
        features = job.features
        if features is None or len(job.workers) <= LEAST_PEERS:
            return []
        found: list[tuple[float, int, dict[str, float]]] = []
        for worker in features.any_signs(FAMILIES):
            signs = features.signs(worker, FAMILIES, now, PERSISTENCE_SECONDS)
            strong = {name: strength for name, strength in signs.items() if strength >= STRENGTH}
            if len({FAMILY[name] for name in strong}) >= LEAST_FAMILIES:
                found.append((sum(strong.values()), worker, strong))
        if len(found) != 1:
            return []
        _, worker, strong = found[0]
        node = job.by_index[worker].member.node
        words = features.words(worker, strong)
        return [
            Finding("outlier", worker, 0.6, False, f"worker {worker} on node {node} has differed for minutes: {words}")
        ]
