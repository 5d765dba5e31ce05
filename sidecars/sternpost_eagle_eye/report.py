"""Findings become Anomaly objects, `anomalies.sternpost.dev/v1alpha1`, and are repeated while they stand. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sternpost_eagle_eye.attempt import Attempt
from sternpost_eagle_eye.detect.base import Finding

REPEAT_SECONDS = 5.0
LATER_REPEAT_SECONDS = 30.0
FRESH_SECONDS = 60.0
"""How long a finding is repeated often: what stands for hours need not be written all the time."""
MAX_EVIDENCE = 4096


@dataclass(frozen=True)
class Anomaly:
    """One object: the same finding of the same attempt always has the same name."""

    name: str
    manifest: dict[str, Any]
    new: bool = True
    """Whether it has not been written before."""


@dataclass
class _Reported:
    first_seen: float
    written_at: float
    finding: Finding
    written: bool


class AnomalyReports:
    """Of one attempt: which findings are due to be written."""

    def __init__(self, attempt: Attempt, namespace: str) -> None:
        self._attempt = attempt
        self._namespace = namespace
        self._reported: dict[str, _Reported] = {}

    def due(self, findings: list[Finding], wall: float) -> list[Anomaly]:
        """New findings and changed verdicts at once, the others now and then. `wall`: Unix seconds."""
        anomalies: list[Anomaly] = []
        for finding in findings:
            name = self._name(finding)
            reported = self._reported.get(name)
            if reported is not None and not _is_due(reported, finding, wall):
                continue
            first_seen = wall if reported is None else reported.first_seen
            new = reported is None or not reported.written
            self._reported[name] = _Reported(first_seen, wall, finding, written=True)
            anomalies.append(Anomaly(name, self._manifest(name, finding, first_seen, wall), new))
        return anomalies

    def failed(self, anomaly: Anomaly) -> None:
        """It could not be written: it is due again at once."""
        reported = self._reported.get(anomaly.name)
        if reported is not None:
            reported.written_at = 0.0
            reported.written = not anomaly.new

    def _name(self, finding: Finding) -> str:
        who = "job" if finding.worker is None else str(finding.worker)
        return f"{self._attempt.spec.id}-{finding.kind}-{who}".lower()

    def _manifest(self, name: str, finding: Finding, first_seen: float, last_seen: float) -> dict[str, Any]:
        spec: dict[str, Any] = {
            "job": self._attempt.spec.job,
            "attempt": self._attempt.spec.id,
            "kind": finding.kind,
            "confidence": round(finding.confidence, 3),
            "evict": finding.evict,
            "evidence": finding.evidence[:MAX_EVIDENCE],
            "firstSeen": _rfc3339(first_seen),
            "lastSeen": _rfc3339(last_seen),
        }
        worker = next((w for w in self._attempt.spec.workers if w.index == finding.worker), None)
        if worker is not None:
            spec |= {"worker": worker.index, "pod": worker.pod, "node": worker.node}
        return {
            "apiVersion": "sternpost.dev/v1alpha1",
            "kind": "Anomaly",
            "metadata": {
                "name": name,
                "namespace": self._namespace,
                "labels": {"sternpost.dev/job": self._attempt.spec.job},
            },
            "spec": spec,
        }


def _is_due(reported: _Reported, finding: Finding, wall: float) -> bool:
    before = reported.finding
    repeat = REPEAT_SECONDS if wall - reported.first_seen < FRESH_SECONDS else LATER_REPEAT_SECONDS
    # A clock that was set back must not silence a finding.
    return before.evict != finding.evict or not 0 <= wall - reported.written_at < repeat


def _rfc3339(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
