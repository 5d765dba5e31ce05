"""A worker that needs longer for its own part of a step than its peers do, or whose hardware makes the job slow.

Three families of signals: its own compute time against peers and past; the job's step time against the job's past; what the
exporters say of its node. Two of them that agree for long enough are reason to leave the node, one of them to suspect it.
"""

from __future__ import annotations

import math

from sternpost_eagle_eye.config import EagleEyePolicy, SlowPolicy
from sternpost_eagle_eye.detect.base import Finding
from sternpost_eagle_eye.features import BLAMING, FAMILY, FeatureBoard
from sternpost_eagle_eye.pace import Pace
from sternpost_eagle_eye.track import JobTrack, WorkerTrack

LEVEL = 7.0
"""Of the sums: a worker twice as slow reaches it in 14 s, one of 1.3 times in 40 s."""
UNREST = 4.0
"""Where workers are slow and recover by themselves for a tenth of the time, the sum must be this many tenths more."""
SIGNED_LEVEL = 2.5
"""The same where the node's own hardware says why."""
SIGN_SECONDS = 4.0
SIGN_LEAD = 90.0
"""A sign that began so long before the job became slow is no reason for it."""
MARGIN = 1.8
"""Times as many signs as anybody else's, where only signs can tell who it is."""
EXTREME = 1.5
"""Times the ratio: slow beyond doubt even if the job was never seen healthy."""
ROSE = 1.06
"""The job's step time against that before, at least."""
MIN_EXCESS_SECONDS = 0.005
MIN_EXCESS_SHARE = 0.08
"""Of the step: what costs less does not matter to the job."""
SIGNED_SHARE = 0.5
"""Of `seconds`, where hardware says why: then it is no straggler that recovers."""
LEAST_STEPS = 3
JOB_SECONDS = 120.0
"""That all get slower together is said late: it has many reasons, and most of them pass."""
MOST_APART = 0.25
"""If a larger share of the workers stands out, it is not the nodes."""


class SlowDetector:
    """Reads the sums of `Pace` and the signs of the `FeatureBoard`; both are updated before."""

    def __init__(self, policy: SlowPolicy) -> None:
        self._policy = policy
        self._signed_since: dict[int, float] = {}

    def adopt(self, policy: EagleEyePolicy) -> None:
        """From now on these thresholds count."""
        self._policy = policy.slow

    @property
    def _scale(self) -> float:
        return self._policy.scale()

    def evaluate(self, job: JobTrack, now: float) -> list[Finding]:
        """One finding for each slow worker, or one without a worker when all are slow together."""
        pace, features = job.pace, job.features
        if pace is None or features is None or not pace.workers:
            return []
        apart = [
            worker
            for row, worker in enumerate(pace.workers)
            if pace.apart.sum[row] >= SIGNED_LEVEL * self._scale and pace.fresh[row] and self._matters(pace, row)
        ]
        found = [finding for w in apart if (finding := self._apart(job, pace, features, w, now)) is not None]
        if len(apart) > max(1.0, MOST_APART * len(pace.workers)):
            # Several at once, by compute time alone, are uneven input rather than several sick nodes.
            found = [f for f in found if f.worker is not None and self._signs(features, pace, f.worker, now)]
        if found:
            return found
        signed = self._by_signs(job, pace, features, now)
        if signed is not None:
            return [signed]
        return self._job(pace, now)

    def _matters(self, pace: Pace, row: int) -> bool:
        excess = float(pace.compute[row] - pace.peers[row])
        return excess >= max(MIN_EXCESS_SECONDS, MIN_EXCESS_SHARE * float(pace.step[row]))

    def _signs(self, features: FeatureBoard, pace: Pace, worker: int, now: float) -> dict[str, float]:
        onset = min(float(pace.job.since[0]), now)
        row = pace.row(worker)
        if row is not None:
            onset = min(onset, float(pace.apart.since[row]))
        signs = features.signs(worker, BLAMING, now, SIGN_SECONDS)
        board = features.row(worker)
        return {
            name: s
            for name, s in signs.items()
            if board is not None and features.began(board, name) >= onset - SIGN_LEAD
        }

    def _apart(self, job: JobTrack, pace: Pace, features: FeatureBoard, worker: int, now: float) -> Finding | None:
        row = pace.row(worker)
        if row is None or math.isnan(pace.ratio[row]):
            return None
        signs = self._signs(features, pace, worker, now)
        ratio, policy = float(pace.ratio[row]), self._policy
        seconds, steps = now - float(pace.apart.since[row]), int(pace.apart.steps[row])
        level = (SIGNED_LEVEL if signs else LEVEL * (1 + UNREST * pace.unrest())) * self._scale
        own = pace.own_ratio(worker)
        peers = len(pace.workers) - 1
        if peers == 1:
            level *= 1.5
            if own is not None and own < ROSE:
                return None  # it is the other one that became faster
        rose = pace.risen_job(ROSE)
        extreme = ratio >= EXTREME * policy.ratio
        if pace.apart.sum[row] < level or steps < max(LEAST_STEPS, policy.min_steps // 2):
            return None
        if pace.knows(worker) and pace.knows_past() and not rose and not extreme:
            return None  # the job does not feel it
        if not signs and features.idle_alone(worker, now, float(pace.apart.since[row])):
            return None  # its machine is healthy and has less to do than before: it waits for input
        why = self._doubt(peers, own, rose or extreme, seconds, ratio, signed=bool(signs))
        if steps < policy.min_steps:
            why = why or "too few steps"
        evict = not why
        track = job.by_index[worker]
        parts = [_compute_words(pace, track, row, peers, now)]
        if rose:
            parts.append(f"the job's steps take {pace.job_ratio:.2f} times as long as before")
        if signs:
            parts.append(features.words(worker, signs))
        if not evict:
            parts.append(f"only suspected: {why}")
        confidence = min(0.99, (0.92 if signs else 0.9) + 0.03 * (ratio - 1)) if evict else (0.85 if signs else 0.7)
        return Finding("slow", worker, confidence, evict, "; ".join(parts))

    def _doubt(self, peers: int, own: float | None, worse: bool, seconds: float, ratio: float, *, signed: bool) -> str:
        """Why the worker is only suspected; empty if nothing speaks for it."""
        policy = self._policy
        doubts = (
            (peers == 0, "there is no peer to compare with"),
            (peers == 1 and (own is None or own < policy.ratio), "with one peer only, its own past must agree"),
            (not worse, "the job was never seen faster"),
            (seconds < (SIGNED_SHARE if signed else 1.0) * policy.seconds, "it may recover"),
            (not signed and ratio < policy.ratio, f"less than {policy.ratio:g} times, and nothing else is wrong there"),
        )
        return next((words for doubtful, words in doubts if doubtful), "")

    def _by_signs(self, job: JobTrack, pace: Pace, features: FeatureBoard, now: float) -> Finding | None:
        """The job is slow, nobody's compute time says why, and one node's hardware does."""
        since = float(pace.job.since[0])
        if pace.job.sum[0] < SIGNED_LEVEL * self._scale or pace.job.steps[0] < 3 or pace.job_ratio < ROSE:
            self._signed_since.clear()
            return None
        weights = {
            worker: sum(min(strength, 50.0) for strength in signs.values())
            for worker in features.any_signs(BLAMING)
            if worker in job.by_index
            and (signs := self._signs(features, pace, worker, now))
            and self._explains(pace, worker, signs)
        }
        if not weights:
            return None
        worker, most = max(weights.items(), key=lambda pair: (pair[1], -pair[0]))
        second = max((weight for other, weight in weights.items() if other != worker), default=0.0)
        if most < MARGIN * second:
            return None
        began = self._signed_since.setdefault(worker, now)
        seconds = now - max(began, since)
        evict = len(pace.workers) > 2 and seconds >= SIGNED_SHARE * self._policy.seconds
        signs = self._signs(features, pace, worker, now)
        evidence = (
            f"the job's steps take {pace.job_ratio:.2f} times as long as before for {now - since:.0f} s, and of all "
            f"{len(pace.workers)} nodes that of worker {worker} on {job.by_index[worker].member.node} stands out: "
            f"{features.words(worker, signs)}"
        )
        if not evict:
            evidence += "; only suspected: it may recover"
        return Finding("slow", worker, 0.92 if evict else 0.8, evict, evidence)

    @staticmethod
    def _explains(pace: Pace, worker: int, signs: dict[str, float]) -> bool:
        """Where waits are told from computing, heat and lost processor time show in the worker's own."""
        if not pace.measured() or any(FAMILY[name] == "network" for name in signs):
            return True
        own = pace.own_ratio(worker)
        return own is None or own >= ROSE

    def _job(self, pace: Pace, now: float) -> list[Finding]:
        since, ratio = float(pace.job.since[0]), pace.job_ratio
        lasted = now - since >= JOB_SECONDS * self._scale and pace.job.steps[0] >= self._policy.min_steps
        if not lasted or ratio < self._policy.ratio or pace.job.sum[0] < LEVEL * self._scale:
            return []
        share = pace.risen(1.1)
        return [
            Finding(
                "slow",
                None,
                0.5,
                False,
                f"steps take {ratio:.2f} times as long as before for {now - since:.0f} s; {share:.0%} of "
                f"{len(pace.workers)} workers compute longer than before: the job and no node is to blame",
            )
        ]


def _compute_words(pace: Pace, track: WorkerTrack, row: int, peers: int, now: float) -> str:
    ratio, seconds, steps = float(pace.ratio[row]), now - float(pace.apart.since[row]), int(pace.apart.steps[row])
    where = f"worker {track.index} on node {track.member.node}"
    against = f"a median of {_milliseconds(pace.peers[row])} of {peers} peers" if peers else "its own past"
    waits = max(0.0, float(pace.step[row] - pace.peers[row]))
    return (
        f"{where}: compute {_milliseconds(pace.compute[row])} against {against} ({ratio:.2f} times what is usual for it) "
        f"for {seconds:.0f} s and {steps} steps; the peers wait {_milliseconds(waits)} a step"
    )


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
