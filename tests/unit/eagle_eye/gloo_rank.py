"""One rank of a small DDP training, run as a process by test_distributed_reporter.py; prints one JSON line."""

from __future__ import annotations

import json
import os
import sys
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


def gradients(model: torch.nn.Module) -> list[float]:
    return [float(value) for parameter in model.parameters() for value in parameter.grad.flatten()]


def build(views: bool) -> DistributedDataParallel:
    torch.manual_seed(7)
    layers = torch.nn.Sequential(torch.nn.Linear(33, 64), torch.nn.Tanh(), torch.nn.Linear(64, 7))
    return DistributedDataParallel(layers, bucket_cap_mb=0.004, gradient_as_bucket_view=views)


def main() -> None:
    options = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    pairs = [(build(views), build(views)) for views in (False, True)]

    # Only a StepReporter and torch may be needed in a training image.
    from prometheus_client import REGISTRY

    from sternpost_eagle_eye import StepReporter

    reporter = StepReporter(model=pairs[0][1])
    assert reporter.attach(pairs[1][1])
    equal = True
    waiting_seen = 0.0
    for step in range(1, options["steps"] + 1):
        torch.manual_seed(step * 100 + rank)
        batch = torch.randn(16, 33)
        for plain, _ in pairs:
            plain.zero_grad()
            plain(batch).pow(2).mean().backward()
        for _, watched in pairs:
            watched.zero_grad()
        dist.barrier()
        with reporter.step(step):
            time.sleep(options["slow_seconds"] if rank == options["slow_rank"] else options["quick_seconds"])
            for _, watched in pairs:
                loss = watched(batch).pow(2).mean()
                loss.backward()
        reporter.report(loss=loss, samples=16)
        equal = equal and all(gradients(plain) == gradients(watched) for plain, watched in pairs)
        waiting_seen = max(
            waiting_seen, REGISTRY.get_sample_value("sternpost_in_collective", {"rank": str(rank)}) or 0.0
        )

    def value(name: str) -> float:
        return REGISTRY.get_sample_value(name, {"rank": str(rank)}) or 0.0

    sys.stdout.write(
        json.dumps(
            {
                "rank": rank,
                "equal": equal,
                "step": value("sternpost_step"),
                "stepSum": value("sternpost_step_seconds_sum"),
                "computeSum": value("sternpost_compute_seconds_sum"),
                "inCollectiveAfterSteps": waiting_seen,
                "foreign": sorted(
                    name for name in ("starlette", "httpx", "pydantic", "psutil", "structlog") if name in sys.modules
                ),
            }
        )
        + "\n"
    )
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    main()
