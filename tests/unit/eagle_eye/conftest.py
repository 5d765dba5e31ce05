"""A job on virtual time: vectors as the sidecars of noisy machines would send them."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sternpost_eagle_eye.attempt import Attempt
from sternpost_eagle_eye.config import EagleEyePolicy, Settings
from sternpost_eagle_eye.control_plane.folder import FolderControlPlane
from sternpost_eagle_eye.detect.base import Finding
from sternpost_eagle_eye.judge import Judge
from sternpost_eagle_eye.replay import replay_vectors
from sternpost_eagle_eye.sidecar.court import Court
from sternpost_eagle_eye.sidecar.own_metrics import OwnMetrics
from sternpost_eagle_eye.vector import (
    ExporterVector,
    LauncherVector,
    PageState,
    ProcessVector,
    RankProcess,
    RankVector,
    Vector,
)

WALL = 1_764_000_000.0


def attempt_wire(
    workers: int = 4,
    *,
    spares: int = 0,
    number: int = 3,
    action: str = "run",
    job_uid: str = "uid-job",
    ports: dict[int, int] | None = None,
    issued_at: float = WALL,
) -> dict[str, Any]:
    def member(slot: int) -> dict[str, Any]:
        return {
            "pod": f"gpt-{slot}",
            "uid": f"uid-{slot}",
            "node": f"node-{slot}",
            "address": "127.0.0.1",
            "eagleEyePort": (ports or {}).get(slot, 9470),
        }

    return {
        "apiVersion": "sternpost.dev/v1alpha1",
        "kind": "Attempt",
        "metadata": {"name": "gpt", "namespace": "default"},
        "spec": {
            "job": "gpt",
            "jobUid": job_uid,
            "number": number,
            "id": f"{number}-9f2c1a00",
            "action": action,
            "ranksPerWorker": 1,
            "worldSize": workers,
            "workers": [member(slot) | {"index": slot} for slot in range(workers)] if action == "run" else [],
            "spares": [member(workers + slot) for slot in range(spares)] if action == "run" else [],
            "masterAddress": "127.0.0.1",
            "masterPort": 29400,
            "issuedAt": datetime.fromtimestamp(issued_at, UTC).isoformat(),
            "aNewerField": {"kept": True},
        },
    }


class SimulatedJob:
    """One rank a worker, synchronous: the slowest sets the pace, the others wait."""

    def __init__(
        self,
        workers: int = 4,
        *,
        seed: int = 0,
        noise: float = 0.1,
        bursts: float = 0.0,
        base: float = 0.1,
        policy: dict[str, Any] | None = None,
        spares: int = 0,
    ) -> None:
        self.attempt = Attempt.model_validate(attempt_wire(workers, spares=spares))
        self.policy = EagleEyePolicy.model_validate(policy or {})
        self.now = 1000.0
        self.judge = Judge(self.attempt, self.policy, self.now)
        self.random = random.Random(seed)  # noqa: S311 - noise, not a secret
        self.count, self.noise, self.bursts, self.base = workers, noise, bursts, base
        self.factor = [1.0] * workers
        self.drift = [0.0] * workers
        self.burst = [(0.0, 1.0)] * workers
        self.silent: set[int] = set()
        self.launcher = ["running"] * workers
        self.phase = "init"
        self.steps = 0
        self.debt = 0.0
        self.sums = [[0.0, 0.0] for _ in range(workers)]
        self.sequence = 0
        self.standing = False
        self.in_collective = [False] * workers
        self.pages = [PageState.OK] * workers
        self.stopped = [False] * workers
        self.cpu = [0.0] * workers
        self.behind: dict[int, int] = {}
        self.sees_processes = True
        self.restored: int | None = None
        self.reports = True
        self.findings: list[tuple[float, Finding]] = []

    @property
    def wall(self) -> float:
        return WALL + self.now

    def compute(self, worker: int) -> float:
        self.drift[worker] = 0.7 * self.drift[worker] + self.random.gauss(0, self.noise)
        until, factor = self.burst[worker]
        if self.now > until:
            factor = 1.0
            if self.random.random() < self.bursts:
                factor = self.random.uniform(1.4, 2.2)
                self.burst[worker] = (self.now + self.random.uniform(1, 6), factor)
        return self.base * self.factor[worker] * factor * math.exp(self.drift[worker])

    def advance(self, seconds: float = 1.0) -> None:
        """One second of training."""
        self.now += seconds
        if self.standing or self.phase in ("eval", "checkpoint"):
            return
        if self.phase == "init" and self.reports:
            return
        computes = [self.compute(worker) for worker in range(self.count)]
        step = max(computes) + 0.01
        self.debt += seconds
        steps = int(self.debt / step)
        self.debt -= steps * step
        self.steps += steps
        for worker, compute in enumerate(computes):
            self.cpu[worker] += compute * steps
            self.sums[worker][0] += step * steps
            self.sums[worker][1] += compute * steps

    def vector(self, worker: int) -> Vector:
        self.sequence += 1
        steps = self.steps - self.behind.get(worker, 0)
        page = self.pages[worker] if self.reports else PageState.NONE
        fields: dict[str, Any] = {}
        if page is PageState.OK:
            fields = {
                "phase": self.phase,
                "in_collective": self.in_collective[worker],
                "step_sum": self.sums[worker][0],
                "step_count": self.steps,
                "compute_sum": self.sums[worker][1],
                "compute_count": self.steps,
                "restored_step": self.restored,
            }
            if self.steps:
                fields |= {"step": steps + (self.restored or 0), "loss": 2.5, "last_step_at": self.wall}
        process = ProcessVector(alive=True, stopped=self.stopped[worker], cpu_seconds=self.cpu[worker])
        return Vector(
            attempt=self.attempt.spec.id,
            pod_uid=f"uid-{worker}",
            boot="b",
            sequence=self.sequence,
            launcher=LauncherVector(
                attempt=self.attempt.spec.id,
                state=self.launcher[worker],  # type: ignore[arg-type]
                updated_at=self.wall,
                started_at=WALL,
                ranks=(RankProcess(rank=worker, local_rank=0, pid=100 + worker),),
            ),
            ranks=(RankVector(rank=worker, page=page, process=process if self.sees_processes else None, **fields),),
        )

    def run(self, seconds: int, *, until_found: bool = False) -> list[Finding]:
        """Seconds of virtual time; returns what the judge said last. With `until_found`, stops at the first finding."""
        found: list[Finding] = []
        for _ in range(seconds):
            self.advance()
            for worker in range(self.count):
                if worker not in self.silent:
                    assert self.judge.take(self.vector(worker), self.now, self.wall) is None
            found = self.judge.tick(self.now)
            self.findings += [(self.now, finding) for finding in found]
            if found and until_found:
                break
        return found

    def train(self, seconds: int = 30) -> SimulatedJob:
        """Healthy training."""
        self.phase = "train"
        assert self.run(seconds) == []
        return self

    def hang(self, culprit: int | None, *, in_collective: bool = True) -> SimulatedJob:
        """Nobody gets on; all but the culprit wait."""
        self.standing = True
        self.in_collective = [in_collective and worker != culprit for worker in range(self.count)]
        return self


class RecordedJob:
    """A recording of a synchronous job, two steps a second, with exporters: as vectors."""

    def __init__(self, workers: int = 4) -> None:
        self.items: list[tuple[float, Vector | None]] = []
        self.t, self.step, self.stands = 1000.0, 10, False
        self.state: list[dict[str, Any]] = [
            {"gpus": 8, "ecc_double_bit": 3, "remap_failures": 0, "edac_uncorrectable": 1, "gpu_util": 0.9, "load": 1.0}
            | {
                "cpu_total": 0.0,
                "cpu_steal": 0.0,
                "sm_clock_least": 1700.0,
                "filesystem_free": 0.4,
                "disk_io_time": 0.0,
            }
            for _ in range(workers)
        ]
        self.rates: list[dict[str, float]] = [{"cpu_total": 64.0, "cpu_steal": 0.1} for _ in range(workers)]
        self.compute = [0.4] * workers
        self.sums = [[0.0, 0.0] for _ in range(workers)]
        self.ranks: list[dict[str, Any]] = [{"loss": 2.5, "grad_norm": 1.0} for _ in range(workers)]
        self.debt = 0.0

    def run(self, seconds: int) -> RecordedJob:
        """Seconds of it, with a vector a second of each worker."""
        for _ in range(seconds):
            self.t += 1
            step = max(self.compute) + 0.1
            self.debt += 0.0 if self.stands else 1.0
            done = int(self.debt / step)
            self.debt -= done * step
            self.step += done
            for worker, state in enumerate(self.state):
                self.sums[worker][0] += step * done
                self.sums[worker][1] += self.compute[worker] * done
                for name, rate in self.rates[worker].items():
                    if name in state:
                        state[name] += rate
                self.items.append((self.t + worker / 100, self.vector(worker, **self._said(worker, state))))
        return self

    def _said(self, worker: int, state: dict[str, Any]) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "step": self.step,
            "phase": "train",
            "step_sum": self.sums[worker][0],
            "step_count": self.step,
            "compute_sum": self.sums[worker][1],
            "compute_count": self.step,
            "in_collective": self.stands,
        }
        rank = RankVector(rank=worker, page=PageState.OK, **(fields | self.ranks[worker]))
        return {"ranks": (rank,), "exporters": ExporterVector(at=self.t, **state) if state else None}

    def vector(self, worker: int, **fields: Any) -> Vector:
        return Vector(attempt="recording", pod_uid="", boot="", sequence=0, worker=worker, node=f"n{worker}", **fields)

    def said(self) -> list[tuple[str, str | None, bool]]:
        return [(verdict.kind, verdict.node, verdict.evict) for verdict in replay_vectors(self.items)]


@pytest.fixture(scope="session")
def recorded() -> Callable[..., RecordedJob]:
    return RecordedJob


@pytest.fixture(scope="session")
def simulate() -> Callable[..., SimulatedJob]:
    return SimulatedJob


@pytest.fixture(scope="session")
def make_attempt() -> Callable[..., dict[str, Any]]:
    return attempt_wire


@pytest.fixture(scope="session")
def make_attempt_bytes() -> Callable[..., bytes]:
    return lambda *args, **more: json.dumps(attempt_wire(*args, **more)).encode()


def court_in(
    folder: Path, metrics: OwnMetrics, clock: Callable[[], float], now: Callable[[], float] | None = None
) -> Court:
    (folder / "token").write_text("s3cret\n")
    settings = Settings(
        job="gpt",
        job_uid="uid-job",
        namespace="default",
        pod="gpt-0",
        pod_uid="uid-0",
        node="node-0",
        control_dir=folder,
        control_plane=folder.as_uri(),
        token_file=folder / "token",
        port=9470,
        metrics_ports=(),
    )
    return Court(settings, FolderControlPlane(folder, "gpt", "uid-job"), metrics, clock, now or clock)


@pytest.fixture(scope="session")
def make_court() -> Callable[..., Court]:
    """Worker 0's court with a folder as its control plane, whose token is `s3cret`."""
    return court_in
