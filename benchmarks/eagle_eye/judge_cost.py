"""What judging costs: 1,000 workers, a vector each a second, decoded from JSON and judged with all detectors.

python -m benchmarks.eagle_eye.judge_cost --json

Everything that worker 0's sidecar does for a vector is measured except for the socket: decoding, checking, remembering, and once
a second the judgement. The time is CPU time of this process, as shares of one core.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from benchmarks.results import Check, publish
from sternpost_eagle_eye.attempt import Attempt, AttemptSpec, Worker
from sternpost_eagle_eye.config import EagleEyePolicy
from sternpost_eagle_eye.judge import Judge
from sternpost_eagle_eye.vector import (
    ExporterVector,
    LauncherVector,
    MachineVector,
    PageState,
    ProcessVector,
    RankProcess,
    RankVector,
    Vector,
)

WALL = 1_764_000_000.0
EXPORTERS_EVERY = 15
GOAL_CORES = 0.5
GOAL_MEGABYTES = 300.0


def attempt_of(workers: int) -> Attempt:
    """An attempt with so many workers."""
    return Attempt(
        spec=AttemptSpec.model_validate(
            {
                "job": "cost",
                "jobUid": "uid",
                "number": 1,
                "id": "1-cost",
                "action": "run",
                "issuedAt": "2026-01-01T00:00:00Z",
                "workers": [
                    Worker(
                        pod=f"p{i}", uid=f"u{i}", node=f"n{i}", address="10.0.0.1", eagle_eye_port=9470, index=i
                    ).to_wire()
                    for i in range(workers)
                ],
            }
        )
    )


class Job:
    """A healthy synchronous job with some noise."""

    def __init__(self, workers: int) -> None:
        self.random = np.random.default_rng(1)
        self.workers = workers
        self.steps = 0
        self.sums = np.zeros((workers, 2))

    def second(self, second: int) -> list[bytes]:
        """All workers' vectors, as they come over the network."""
        compute = 0.1 * np.exp(self.random.normal(0, 0.05, self.workers))
        step = float(compute.max()) + 0.01
        done = int(1 / step)
        self.steps += done
        self.sums += np.stack([np.full(self.workers, step), compute], axis=1) * done
        return [self._vector(worker, second).to_json() for worker in range(self.workers)]

    def _vector(self, worker: int, second: int) -> Vector:
        noise = float(self.random.normal(1, 0.02))
        exporters = None
        if (second + worker) % EXPORTERS_EVERY == 0:
            exporters = ExporterVector(
                at=WALL + second,
                gpus=8,
                gpu_util=min(1.0, 0.9 * noise),
                gpu_power=500 * noise,
                gpu_temperature=60 * noise,
                sm_clock=1700 * noise,
                sm_clock_least=1690 * noise,
                cpu_total=64.0 * second,
                cpu_idle=40.0 * second,
                cpu_iowait=0.1 * second,
                cpu_steal=0.0,
                network_received=1e9 * second,
                network_sent=1e9 * second,
                disk_io_time=0.1 * second,
                filesystem_free=0.4,
                container_cpu=10.0 * second,
                ecc_double_bit=0,
            )
        return Vector(
            attempt="1-cost",
            pod_uid=f"u{worker}",
            boot="b",
            sequence=second,
            launcher=LauncherVector(
                attempt="1-cost",
                state="running",
                updated_at=WALL + second,
                ranks=(RankProcess(rank=worker, local_rank=0, pid=100),),
            ),
            ranks=(
                RankVector(
                    rank=worker,
                    page=PageState.OK,
                    step=self.steps,
                    loss=2.5,
                    grad_norm=1.0,
                    phase="train",
                    in_collective=False,
                    step_sum=float(self.sums[worker, 0]),
                    step_count=self.steps,
                    compute_sum=float(self.sums[worker, 1]),
                    compute_count=self.steps,
                    process=ProcessVector(alive=True, cpu_seconds=float(second)),
                ),
            ),
            machine=MachineVector(cpu_busy=0.5, load=10, memory_total=1, memory_available=1),
            exporters=exporters,
        )


def measure(workers: int, seconds: int) -> tuple[float, float, int]:
    """Cores used, the most memory in MiB, and how many findings there were (none are right)."""
    job, judge = Job(workers), Judge(attempt_of(workers), EagleEyePolicy(), 0.0)
    used, findings = 0.0, 0
    for second in range(1, seconds + 1):
        bodies = job.second(second)
        started = time.process_time()
        for body in bodies:
            reason = judge.take(Vector.model_validate_json(body), float(second), WALL + second)
            assert reason is None, reason
        findings += len(judge.tick(float(second)))
        used += time.process_time() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return used / seconds, memory, findings


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    cores, memory, findings = measure(arguments.workers, arguments.seconds)
    checks = [
        Check(f"cores to judge {arguments.workers} workers", cores, "", f"<= {GOAL_CORES:g}", cores <= GOAL_CORES),
        Check(
            "memory of the process, the generator included",
            memory,
            "MiB",
            f"<= {GOAL_MEGABYTES:g}",
            memory <= GOAL_MEGABYTES,
        ),
        Check("findings in a healthy job", findings, "", "0", findings == 0),
    ]
    publish(
        "eagle-eye-judge-cost",
        {"workers": arguments.workers, "seconds": arguments.seconds},
        checks,
        as_json=arguments.json,
    )


if __name__ == "__main__":
    main()
