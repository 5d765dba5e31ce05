"""Two ranks over gloo on this machine, one sidecar, DDP."""

from __future__ import annotations

import socket
from typing import Any

from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.verify import verify_generation

SCRIPT = """
import os, torch
import torch.distributed as dist
from pathlib import Path
from sternpost_checkpoint import Checkpointer

dist.init_process_group("gloo")
rank = dist.get_rank()


def train():
    torch.manual_seed(5)
    model = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.Linear(64, 32))
    optimizer = torch.optim.AdamW(model.parameters())
    ddp = torch.nn.parallel.DistributedDataParallel(model)
    extra = {"name": "nobody"}
    checkpointer = Checkpointer(model=ddp, optimizer=optimizer, extra=extra)
    start = checkpointer.restore()
    if start == 0:
        torch.manual_seed(rank)
        extra["name"] = f"rank {rank}"
    first = torch.randn(1).item()
    for step in range(start + 1, start + 3):
        optimizer.zero_grad()
        ddp(torch.randn(4, 32)).pow(2).mean().backward()
        optimizer.step()
        checkpointer.save(step, wait=True)
    checkpointer.close()
    total = sum(p.detach().double().sum().item() for p in model.parameters())
    print("RESULT", rank, start, total, extra["name"], flush=True)


train()
if rank == 1:
    # Its memory is lost: both must take what both can get, one of them from the storage.
    for slot in Path(os.environ["STERNPOST_SHM_DIR"]).glob("checkpoint/rank-1/slot-*"):
        slot.unlink()
os.environ["STERNPOST_ATTEMPT"], os.environ["STERNPOST_ATTEMPT_NUMBER"] = "2-id", "2"
train()
dist.destroy_process_group()
"""


def test_two_ranks_share_the_work_and_agree_on_what_to_restore(surroundings: Any) -> None:
    surroundings.keep = 9
    surroundings.sidecar()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    processes = [surroundings.forked(SCRIPT, RANK=str(rank), **environment) for rank in range(2)]
    results = []
    for rank, process in enumerate(processes):
        output = process.communicate(timeout=100)[0].decode()
        assert process.returncode == 0, output
        lines = [line.split(maxsplit=4) for line in output.splitlines() if line.startswith("RESULT")]
        assert [line[2] for line in lines] == ["0", "2"], output
        assert [line[4] for line in lines] == [f"rank {rank}"] * 2
        results.append([line[3] for line in lines])
    assert results[0] == results[1]

    generations = [files.generation for files in surroundings.catalog.generations() if files.complete]
    assert generations == [Generation(1, 1), Generation(2, 1), Generation(3, 2), Generation(4, 2)]
    manifest = surroundings.catalog.manifest(generations[-1])
    assert (manifest.world_size, manifest.replicated) == (2, True)
    shares = [entry.raw_bytes for entry in manifest.ranks]
    assert max(shares) < 0.7 * sum(shares)
    assert verify_generation(surroundings.catalog, generations[-1]) == []
