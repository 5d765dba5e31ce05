"""Faults that hardware itself reports: fatal XIDs, uncorrectable memory errors, a GPU that is gone. Edges, never levels."""

from __future__ import annotations

from dataclasses import dataclass, field

from sternpost_eagle_eye.detect.base import Finding
from sternpost_eagle_eye.detect.standstill import standing, still_seconds
from sternpost_eagle_eye.track import JobTrack, WorkerTrack
from sternpost_eagle_eye.vector import ExporterVector

FATAL_XIDS = {
    48: "double-bit memory error",
    62: "GPU's microcontroller halted",
    64: "row remapping failed",
    79: "GPU has fallen off the bus",
    95: "uncontained memory error",
    119: "GSP does not answer",
    120: "GSP error",
    140: "unrecovered memory error",
    143: "GPU initialization failed",
}
"""All others, an application's own faults among them, blame nobody by themselves."""
MISSING_SCRAPES = 2
STANDING_SECONDS = 8.0
"""That a job must stand still before an exporter without any GPU is believed."""
UNSEEN_STANDING_SECONDS = 15.0
"""The same where nobody's waits are measured, and only the time of both says that they belong together."""
UNLISTED_INTERVALS = 2.2
"""Of the exporter's own, in which no GPU is listed."""
TOGETHER_SECONDS = 15.0
HOLD_SECONDS = 600.0
"""A fault does not go away because its counter stands still."""
_TOTALS = (
    ("ecc_double_bit", "uncorrectable memory errors of a GPU", True),
    ("remap_failures", "failed row remappings", True),
    ("edac_uncorrectable", "uncorrectable errors of main memory", True),
    ("remapped_rows", "rows remapped for uncorrectable errors", False),
)


@dataclass
class _Known:
    """What was seen of a worker's hardware in this attempt."""

    at: float = 0.0
    gpus: int = 0
    missing: int = 0
    gone_since: float | None = None
    listed_at: float | None = None
    """When GPUs were last listed, on the judge's clock."""
    every: float = 0.0
    """Seconds between two lists, usually."""
    xids: set[tuple[str, int]] = field(default_factory=set)
    counts: dict[int, float] = field(default_factory=dict)
    totals: dict[str, float] = field(default_factory=dict)
    faults: dict[str, tuple[float, bool, str]] = field(default_factory=dict)
    """Time, whether the node must be left, and the words, by what is broken."""


class HardwareDetector:
    """Looks at each scrape once."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}

    def evaluate(self, job: JobTrack, now: float) -> list[Finding]:
        """One finding for each worker with broken hardware."""
        findings: list[Finding] = []
        for track in job.workers:
            if track.index is None or (track.exporters is None and not track.signs):
                continue
            known = self._known.get(track.index)
            if known is None:
                known = self._known[track.index] = _Known()
            self._look(job, track, known, now)
            if known.faults:
                findings.append(_finding(track, known, now))
        return [finding for finding in findings if finding.confidence > 0]

    def _look(self, job: JobTrack, track: WorkerTrack, known: _Known, now: float) -> None:
        for at, sign in track.signs:
            if sign.signature == "xid" and sign.code in FATAL_XIDS:
                _fault(known, f"xid {sign.code}", at, True, f"XID {sign.code} in the log ({FATAL_XIDS[sign.code]})")
            elif sign.signature in ("gpu-lost", "ecc"):
                _fault(known, sign.signature, at, True, f"the log says: {sign.line[:160]}")
        exporters = track.exporters
        if exporters is None:
            return
        if exporters.at != known.at:
            first, known.at = known.at == 0.0, exporters.at
            _edges(exporters, known, now, first=first)
        if known.missing >= MISSING_SCRAPES or (known.missing and standing(job, now)):
            _fault(known, "gpu missing", now, True, f"{exporters.gpus} GPUs are listed where there were {known.gpus}")
        # All GPUs at once are an exporter that restarts, unless the job stands because of this worker alone.
        still = still_seconds(job, now)
        if not _unlisted(known, now) or still <= STANDING_SECONDS or not standing(job, now):
            return
        if _alone(job, track):
            words = f"none of {known.gpus} GPUs is listed any more, and all other workers wait for this one"
            _fault(known, "gpu missing", now, False, words)
        elif still > UNSEEN_STANDING_SECONDS and self._unlisted_alone(job, track, known, now):
            words = (
                f"none of {known.gpus} GPUs is listed any more since the job stands, and all other nodes list theirs"
            )
            _fault(known, "gpu missing", now, False, words)

    def _unlisted_alone(self, job: JobTrack, track: WorkerTrack, known: _Known, now: float) -> bool:
        """Whether nobody's waits are known, and this exporter alone ended just when the job did."""
        if any(each.waits() for each in job.workers) or known.listed_at is None:
            return False
        ended = known.listed_at + known.every / 2
        if abs(ended - job.progress_at) > TOGETHER_SECONDS + known.every / 2:
            return False
        others = [self._known[w] for w in self._known if w != track.index and self._known[w].gpus]
        return len(others) > 1 and not any(_unlisted(other, now) for other in others)


def _unlisted(known: _Known, now: float) -> bool:
    """Whether GPUs that were listed are not, for longer than the exporter usually takes."""
    if known.listed_at is None:
        return False
    if known.gone_since is not None and now - known.gone_since > STANDING_SECONDS:
        return now - known.listed_at > known.every
    return now - known.listed_at > max(STANDING_SECONDS, UNLISTED_INTERVALS * known.every)


def _alone(job: JobTrack, track: WorkerTrack) -> bool:
    return not track.waits() and all(other.waits() for other in job.workers if other is not track)


def _edges(exporters: ExporterVector, known: _Known, now: float, *, first: bool) -> None:
    """What is new against all that was seen before. Levels at the first scrape are somebody's past."""
    listed = exporters.gpus
    same = listed is not None and known.gpus in {0, listed}
    new = set(exporters.xids) - known.xids
    known.xids |= new
    if listed is not None and known.gpus > 0 and listed <= known.gpus:
        for gpu, code in sorted(new):
            if code in FATAL_XIDS:
                _fault(known, f"xid {code}", now, True, f"XID {code} on GPU {gpu} ({FATAL_XIDS[code]})")
    for code, total in exporters.xid_counts:
        before = known.counts.get(code, None if first else 0.0)
        known.counts[code] = max(total, before or 0.0)
        if before is not None and total > before and code in FATAL_XIDS:
            _fault(known, f"xid {code}", now, True, f"XID {code} ({FATAL_XIDS[code]}), {total - before:.0f} more")
    for name, words, decisive in _TOTALS:
        value = getattr(exporters, name)
        if value is None:
            continue
        before = known.totals.get(name)
        known.totals[name] = max(value, before or 0.0)
        # The sum over GPUs also changes with the number of GPUs, and an old level comes back after a reset.
        if before is not None and value > before and (same or name == "edac_uncorrectable"):
            _fault(known, name, now, decisive, f"{value - before:.0f} more {words}")
    if listed is None:
        elsewhere = (
            exporters.cpu_total is not None or exporters.load is not None or exporters.memory_available is not None
        )
        # An exporter that is asked at other times than this one's is no sign.
        if known.gpus and elsewhere and known.listed_at is not None and now - known.listed_at > 1.5 * known.every:
            known.gone_since = now if known.gone_since is None else known.gone_since
        return
    if known.listed_at is not None and known.gone_since is None:
        known.every = now - known.listed_at if not known.every else 0.8 * known.every + 0.2 * (now - known.listed_at)
    known.listed_at = now
    settled = known.gone_since is None
    known.gone_since = None
    known.missing = known.missing + 1 if listed < known.gpus and (settled or known.missing) else 0
    known.gpus = max(known.gpus, listed)


def _fault(known: _Known, what: str, at: float, decisive: bool, words: str) -> None:
    known.faults.setdefault(what, (at, decisive, words))


def _finding(track: WorkerTrack, known: _Known, now: float) -> Finding:
    standing_faults = [fault for fault in known.faults.values() if now - fault[0] <= HOLD_SECONDS]
    decisive = any(fault[1] for fault in standing_faults)
    words = "; ".join(fault[2] for fault in sorted(standing_faults))
    confidence = 0.0 if not standing_faults else 0.98 if decisive else 0.7
    where = f"worker {track.index} on node {track.member.node}"
    return Finding("hardware", track.index, confidence, decisive, f"{where}: {words}")
