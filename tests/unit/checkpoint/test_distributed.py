"""Two ranks over gloo on this machine, one sidecar, DDP."""

from __future__ import annotations

import socket
from typing import Any

SCRIPT = """
import os, sys, torch
import torch.distributed as dist
from sternpost_checkpoint import Checkpointer

dist.init_process_group("gloo")
torch.manual_seed(5)
model = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.Linear(64, 32))
optimizer = torch.optim.AdamW(model.parameters())
ddp = torch.nn.parallel.DistributedDataParallel(model)
extra = {"name": "nobody"}
checkpointer = Checkpointer(model=ddp, optimizer=optimizer, extra=extra)
start = checkpointer.restore()
rank = dist.get_rank()
torch.manual_seed(start * 100 + rank)
if start == 0:
    extra["name"] = f"rank {rank}"
for step in range(start + 1, start + 3):
    optimizer.zero_grad()
    ddp(torch.randn(4, 32)).pow(2).mean().backward()
    optimizer.step()
    checkpointer.save(step)
checkpointer.close()
print("RESULT", rank, start, extra["name"], float(sum(p.double().sum() for p in model.parameters())), flush=True)
dist.destroy_process_group()
"""


def launch(surroundings: Any, attempt: int, world_size: int = 2) -> list[list[str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [
        surroundings.python(
            "-c",
            SCRIPT,
            attempt=attempt,
            RANK=str(rank),
            WORLD_SIZE=str(world_size),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
            GLOO_SOCKET_IFNAME="lo",
        )
        for rank in range(world_size)
    ]
    results = []
    for process in processes:
        output = process.communicate(timeout=100)[0].decode()
        assert process.returncode == 0, output
        results.append(next(line for line in output.splitlines() if line.startswith("RESULT")).split(maxsplit=3))
    return results


def test_two_ranks_share_the_work_and_agree_on_what_to_restore(surroundings: Any) -> None:
    surroundings.sidecar()
    first = launch(surroundings, 1)
    assert [result[2] for result in first] == ["0", "0"]
    manifest = surroundings.catalog.manifest(surroundings.catalog.generations()[-1].generation)
    assert manifest.world_size == 2
    assert manifest.replicated
    shares = [entry.raw_bytes for entry in manifest.ranks]
    assert max(shares) < 0.7 * sum(shares)

    # One rank has lost its memory: both must take what both can get, one of them from the storage.
    for index in range(2):
        surroundings.slot(index, rank=1).unlink()
    second = launch(surroundings, 2)
    assert [result[2] for result in second] == ["2", "2"]
    assert second[0][3].split()[:2] == ["rank", "0"]
    assert second[1][3].split()[:2] == ["rank", "1"]
    assert second[0][3].split()[-1] == second[1][3].split()[-1]
    assert surroundings.catalog.generations()[-1].generation.step == 4
