"""Storage that is full, broken or far slower than before: saves take long, and no node computes the worse for it."""

from __future__ import annotations

from collections import deque
from statistics import median

from sternpost_eagle_eye.detect.base import Finding, names
from sternpost_eagle_eye.track import JobTrack, WorkerTrack

FULL = 0.001
"""Share of a file system that is free when nothing can be written any more."""
FULL_LOOKS = 2
SLOW_SAVE = 4.0
"""Times the usual blocked time of a save."""
SLOW_SAVES = 2.5
"""The same for two, one after the other, and where the disks say so, too."""
LEAST_SECONDS = 2.0
"""What a save must take longer: less does not matter."""
SAVE_HOLD_SECONDS = 30.0
KEPT = 20
HOLD_SECONDS = 600.0
SURE = 0.9
PHASE_SECONDS = 6.0
ENOUGH_PHASES = 2
DISKS_BEFORE_SECONDS = 5.0
"""That disks must have been slow before a save, to say so where too few saves were seen to compare with."""
FIRST_SECONDS = 5.0
"""The same for the first save: so long, at least."""
DISK_SECONDS = 60.0
DISK_STRENGTH = 8.0
DISK_SIGNS = 3
"""Latency, load, I/O wait and pressure: so many of them."""


class StorageStallDetector:
    """Looks at file systems, at what logs say, and at how long saves block the trainer."""

    def __init__(self) -> None:
        self._was_free: dict[int, float] = {}
        self._full: dict[int, int] = {}
        self._seen_at: dict[int, float] = {}
        self._saves: deque[float] = deque(maxlen=KEPT)
        self._long_before = False
        self._blocked: dict[tuple[int, int], float] = {}
        self._waiting_since: float | None = None
        self._phases: deque[float] = deque(maxlen=KEPT)
        """Seconds of the saves that the trainer's phase told of."""
        self._long_for: float | None = None
        self._found: tuple[float, Finding] | None = None
        """Until when it stands."""

    def evaluate(self, job: JobTrack, now: float) -> list[Finding]:
        """At most one finding."""
        words, confidence = self._look(job, now)
        if words:
            hold = HOLD_SECONDS if confidence >= SURE else SAVE_HOLD_SECONDS
            self._found = now + hold, Finding("storage-stall", None, confidence, False, words)
        if self._found is None or now > self._found[0]:
            return []
        return [self._found[1]]

    def _look(self, job: JobTrack, now: float) -> tuple[str, float]:
        full: list[int] = []
        for track in job.workers:
            sign = track.sign("no-space", "io-error", since=now - 5.0) if track.signs else None
            if sign is not None:
                return f"the log of worker {track.index} on node {track.member.node} says: {sign[1].line[:200]}", 0.9
            if track.index is not None and track.exporters is not None and self._is_full(track, track.index):
                full.append(track.index)
        if full:
            return f"a file system of {len(full)} nodes is full (workers {names(full)})", 0.9
        slow_disks = self._slow_disks(job, now)
        return (
            self._slow_saves(job, now, slow_disks)
            or self._long_wait(job, now, slow_disks)
            or self._disks(job, now)
            or ("", 0.0)
        )

    def _is_full(self, track: WorkerTrack, index: int) -> bool:
        exporters = track.exporters
        if exporters is None or exporters.at == self._seen_at.get(index):
            return self._full.get(index, 0) >= FULL_LOOKS
        self._seen_at[index] = exporters.at
        free = exporters.filesystem_free
        if free is None:
            return self._full.get(index, 0) >= FULL_LOOKS
        # One that was full from the start is somebody else's.
        was = self._was_free.setdefault(index, free)
        self._full[index] = self._full.get(index, 0) + 1 if free <= FULL < was else 0
        return self._full[index] >= FULL_LOOKS

    @staticmethod
    def _slow_disks(job: JobTrack, now: float, seconds: float = 0.0) -> list[int]:
        features = job.features
        if features is None:
            return []
        if features.common(("disk",), now, seconds):  # shared storage
            return [track.index for track in job.workers if track.index is not None]
        return sorted(w for w in features.any_signs(("disk",)) if features.signs(w, ("disk",), now, seconds))

    def _slow_saves(self, job: JobTrack, now: float, slow_disks: list[int]) -> tuple[str, float] | None:
        newest: list[float] = []
        for track in job.workers:
            for number, rank in track.ranks.items():
                key = (track.index or 0, number)
                total = rank.known.blocked_sum if rank.known is not None else None
                if rank.blocked_last is None or total is None or self._blocked.get(key) == total:
                    continue
                self._blocked[key] = total
                newest.append(rank.blocked_last)
        if not newest:
            return None
        longest = max(newest)
        if len(self._saves) < 2:
            return self._early_save(job, now, longest)
        usual = median(self._saves)
        long = longest > max(SLOW_SAVES * usual, usual + LEAST_SECONDS)
        again, self._long_before = long and self._long_before, long
        if long and (slow_disks or again or longest > SLOW_SAVE * usual):
            disks = f", and disks are slow on the nodes of workers {names(slow_disks)}" if slow_disks else ""
            return f"a save blocked the trainer for {longest:.1f} s, usually {usual:.1f} s{disks}", 0.85
        if not long:
            self._saves.append(longest)
        return None

    def _early_save(self, job: JobTrack, now: float, longest: float) -> tuple[str, float] | None:
        """One of the first two: nothing says how long they usually take but the disks, if those were slow before it."""
        usual = self._saves[0] if self._saves else 0.0
        long = longest > max(SLOW_SAVES * usual, usual + (LEAST_SECONDS if usual else FIRST_SECONDS))
        if long and (slow := self._slow_disks(job, now, longest + DISKS_BEFORE_SECONDS)):
            told = f"usually {usual:.1f} s" if usual else "and it was the first"
            disks = f"disks are slow on the nodes of workers {names(slow)}"
            return f"a save blocked the trainer for {longest:.1f} s, {told}, and {disks}", 0.8
        self._saves.append(longest)
        return None

    def _long_wait(self, job: JobTrack, now: float, slow_disks: list[int]) -> tuple[str, float] | None:
        saving = job.phase() == "checkpoint"
        if not saving:
            if self._waiting_since is not None:
                lasted = now - self._waiting_since
                if self._long_for is None or lasted < self._long_for:
                    self._phases.append(lasted)
            self._waiting_since = self._long_for = None
            return None
        if self._waiting_since is None:
            self._waiting_since = now
        lasted = now - self._waiting_since
        if len(self._phases) < ENOUGH_PHASES:
            return None
        usual = median(self._phases)
        stuck = slow_disks or any(rank.known is not None and rank.known.checkpoint_waiting for rank in job.ranks())
        if lasted > max((SLOW_SAVES if slow_disks else SLOW_SAVE) * usual, usual + PHASE_SECONDS) and stuck:
            self._long_for = lasted
            return f"a save has been going on for {lasted:.0f} s, which usually takes {usual:.1f} s", 0.8
        return None

    def _disks(self, job: JobTrack, now: float) -> tuple[str, float] | None:
        """Disks that are slow by all that is known of them, whether or not a save is under way."""
        features = job.features
        if features is None or job.phase() == "checkpoint":
            return None  # whoever saves has a busy disk
        for worker in features.any_signs(("disk",)):
            signs = features.signs(worker, ("disk",), now, DISK_SECONDS)
            strong = {name: strength for name, strength in signs.items() if strength >= DISK_STRENGTH}
            if len(strong) >= DISK_SIGNS:
                node = job.by_index[worker].member.node
                words = features.words(worker, strong)
                return (
                    f"the disk of worker {worker} on node {node} has been slow for {DISK_SECONDS:.0f} s: {words}",
                    0.7,
                )
        return None
