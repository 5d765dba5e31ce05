"""Plays vectors to a judge: membership, time and restarts come from the recording itself. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from sternpost_eagle_eye.attempt import Attempt, AttemptSpec, Member
from sternpost_eagle_eye.config import EagleEyePolicy
from sternpost_eagle_eye.detect.base import Finding, Kind
from sternpost_eagle_eye.judge import Judge
from sternpost_eagle_eye.replay.clock import RecordingClock
from sternpost_eagle_eye.vector import PageState, Vector

ATTEMPT = "recording"
"""Id of the attempt where pages name none."""
MAX_WORKERS = 20_000
MAX_STALE_ATTEMPTS = 1000
CLEAR_SECONDS = 600.0
"""What has not been true for so long is over; before, it is the same anomaly when it comes back."""


@dataclass(frozen=True)
class Verdict:
    """What the judge said, when it first said so or changed its mind about an eviction."""

    t: float
    """In the time of the recording, seconds."""
    kind: Kind
    worker: int | None
    node: str | None
    confidence: float
    evict: bool
    evidence: str


class Player:
    """Feeds one recording, line by line, to one judge after the other: each restart begins a new one."""

    def __init__(self, policy: EagleEyePolicy | None = None) -> None:
        self._policy = policy or EagleEyePolicy()
        self._clock = RecordingClock()
        self._judge: Judge | None = None
        self._next_tick = 0.0
        self._told: dict[tuple[Kind, int | None], tuple[bool, float]] = {}
        """What was said, whether to evict, and when it was last true."""
        self._pages_of: set[str] = set()
        self._stale: set[str] = set()
        self.dropped: Counter[str] = Counter()
        """What did not count, by reason."""
        self.taken = 0

    @property
    def jumps(self) -> int:
        """How often a worker's clock was found to have been set."""
        return self._clock.jumps

    def feed(self, t: float, vector: Vector | None) -> list[Verdict]:
        """The next of a recording; None is a restart. What came to light until then."""
        if vector is None:
            self._restart()
            return []
        worker = vector.worker
        if worker is None:
            self.dropped["no worker"] += 1
            return []
        if vector.attempt in self._stale:
            self.dropped["of an attempt before the restart"] += 1
            return []
        reason = self._stranger(worker, vector.node or "")
        if reason:
            self.dropped[reason] += 1
            return []
        # A log line has no part in the rhythm of vectors.
        at = (
            (self._clock.now if self._clock.now is not None else t)
            if only_logs(vector)
            else self._clock.place(worker, t, _content(vector))
        )
        if isinstance(at, str):
            self.dropped[at] += 1
            return []
        self.taken += 1
        found = self._advance(at)
        judge = self._judge
        if judge is None:
            judge = self._judge = _new_judge(self._policy, at)
            self._next_tick = at + self._policy.interval_seconds
        if worker not in judge.job.by_index:
            judge.job.admit(worker, _member(worker, vector.node or ""))
        if vector.attempt != ATTEMPT and len(self._pages_of) < MAX_STALE_ATTEMPTS:
            self._pages_of.add(vector.attempt)
        judge.take_recorded(vector, at, at)
        return found

    def finish(self) -> list[Verdict]:
        """What is true when the recording ends."""
        return [] if self._clock.now is None else self._advance(self._clock.now)

    def _advance(self, at: float) -> list[Verdict]:
        verdicts: list[Verdict] = []
        judge = self._judge
        while judge is not None and self._next_tick <= at:
            verdicts += self._news(judge, judge.tick(self._next_tick), self._next_tick)
            self._next_tick += self._policy.interval_seconds
        return verdicts

    def _news(self, judge: Judge, findings: list[Finding], at: float) -> list[Verdict]:
        news: list[Verdict] = []
        for finding in findings:
            key = finding.kind, finding.worker
            evict, seen = self._told.get(key, (False, -math.inf))
            again = at - seen > CLEAR_SECONDS
            self._told[key] = (finding.evict or (evict and not again), at)
            if again or (finding.evict and not evict):
                track = None if finding.worker is None else judge.job.by_index.get(finding.worker)
                node = None if track is None else track.member.node or None
                news.append(
                    Verdict(
                        round(self._clock.told(at), 3),
                        finding.kind,
                        finding.worker,
                        node,
                        round(finding.confidence, 3),
                        finding.evict,
                        finding.evidence,
                    )
                )
        return news

    def _stranger(self, worker: int, node: str) -> str | None:
        if self._judge is None:
            return None
        known = self._judge.job.by_index.get(worker)
        if known is None:
            return "too many workers" if len(self._judge.job.by_index) >= MAX_WORKERS else None
        if node and known.member.node and node != known.member.node:
            return "worker known on another node"
        return None

    def _restart(self) -> None:
        self._judge = None
        self._told = {}
        self._stale = (self._stale | self._pages_of) if len(self._stale) < MAX_STALE_ATTEMPTS else self._pages_of
        self._pages_of = set()
        self._clock.restarted()


def replay_vectors(items: Iterable[tuple[float, Vector | None]], policy: EagleEyePolicy | None = None) -> list[Verdict]:
    """All that the judge says of `(seconds, vector)` in the order of arrival; None in place of a vector is a restart."""
    player = Player(policy)
    verdicts: list[Verdict] = []
    for t, vector in items:
        verdicts += player.feed(t, vector)
    return verdicts + player.finish()


def replay_text(lines: Iterable[str], policy: EagleEyePolicy | None = None) -> list[Verdict]:
    """The same of a recording's lines."""
    from sternpost_eagle_eye.replay.recording import Recording  # noqa: PLC0415 - it needs this module

    return replay_vectors(Recording(Lines(lines)), policy)


class Lines:
    """Lines in memory, read as from a file."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)

    def readline(self, size: int, /) -> bytes:
        """The next one, cut at `size`; empty at the end."""
        line = next(self._lines, None)
        return b"" if line is None else (line.rstrip("\n") + "\n").encode()[:size]


def only_logs(vector: Vector) -> bool:
    """Whether it says nothing but what some log said: no sign of life."""
    return (
        bool(vector.logs)
        and not vector.ranks
        and vector.exporters is None
        and vector.machine is None
        and vector.launcher is None
    )


def _content(vector: Vector) -> str:
    return "page" if any(rank.page is PageState.OK for rank in vector.ranks) else "exporters"


def _new_judge(policy: EagleEyePolicy, now: float) -> Judge:
    spec = AttemptSpec(
        job="recording",
        job_uid="recording",
        number=1,
        id=ATTEMPT,
        action="run",
        issued_at=datetime.fromtimestamp(0, UTC),
    )
    return Judge(Attempt(spec=spec), policy, now, launchers=False)


def _member(worker: int, node: str) -> Member:
    return Member(pod=f"worker-{worker}", uid=f"worker-{worker}", node=node, address="", eagle_eye_port=1)
