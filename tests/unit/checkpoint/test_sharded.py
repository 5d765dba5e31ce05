"""FSDP2 and tensor parallelism over gloo: each rank saves its blocks, and any number of ranks restores them."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.verify import verify_generation

pytestmark = pytest.mark.timeout(300)  # each process imports torch and more

SCRIPT = """
import json, os, sys, torch
import torch.distributed as dist
from pathlib import Path
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from sternpost_checkpoint import Checkpointer

layout, attempt = sys.argv[1], int(os.environ["STERNPOST_ATTEMPT_NUMBER"])
if layout != "alone":
    dist.init_process_group("gloo")
rank = int(os.environ.get("RANK", 0))
world = int(os.environ.get("WORLD_SIZE", 1))


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = torch.nn.Linear(12, 10), torch.nn.Linear(10, 7)
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x):
        self.seen += 1
        return self.down(torch.relu(self.up(x)))


def shard(model):
    if layout == "fsdp":
        mesh = init_device_mesh("cpu", (world,), mesh_dim_names=("dp",))
        for part in (model.up, model.down, model):
            fully_shard(part, mesh=mesh)
    elif layout == "hsdp":
        mesh = init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("replicate", "shard"))
        for part in (model.up, model.down, model):
            fully_shard(part, mesh=mesh)
    elif layout in ("tp", "tp+fsdp"):
        shape = (world,) if layout == "tp" else (2, world // 2)
        names = ("tp",) if layout == "tp" else ("dp", "tp")
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
        parallelize_module(model, mesh["tp"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
        if layout == "tp+fsdp":
            fully_shard(model, mesh=mesh["dp"])


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def train(steps):
    torch.manual_seed(5)
    model = Net()
    shard(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    extra = {"rank": -1}
    checkpointer = Checkpointer(model=model, optimizer=optimizer, extra=extra)
    first = checkpointer.restore()
    assert not any(parameter.grad is not None for parameter in model.parameters())
    assert first or not optimizer.state
    came = extra["rank"]
    extra["rank"] = rank
    for step in range(first + 1, first + steps + 1):
        optimizer.zero_grad()
        x = torch.arange(48.0).reshape(4, 12) / 48 + step  # the same on all ranks: any layout trains the same
        model(x).pow(2).mean().backward()
        optimizer.step()
        checkpointer.save(step, wait=True)
    checkpointer.close()
    state = {name: whole(value).detach().double().flatten().tolist() for name, value in model.state_dict().items()}
    for number, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            state[f"{number}/{name}"] = whole(value).double().flatten().tolist()
    print("RESULT", json.dumps({"start": first, "came": came, "state": state}), flush=True)


for phase in sys.argv[2:]:
    os.environ["STERNPOST_ATTEMPT"], os.environ["STERNPOST_ATTEMPT_NUMBER"] = f"{attempt}-id", str(attempt)
    attempt += 1
    if phase == "lose":
        for slot in Path(os.environ["STERNPOST_SHM_DIR"]).glob("checkpoint/rank-*/slot-*"):
            slot.unlink(missing_ok=True)
        if dist.is_initialized():
            dist.barrier()
    else:
        train(int(phase))
if dist.is_initialized():
    dist.destroy_process_group()
"""

Result = dict[str, Any]


@pytest.fixture
def train(surroundings: Any) -> Callable[..., list[list[Result]]]:
    """Run phases of the script on `world` ranks, each a number of steps in an attempt of its own, or "lose" to lose the
    shared memory; returns each phase's results by rank."""
    surroundings.keep = 20
    attempts = iter(range(1, 1000, 10))

    def run(layout: str, world: int, *phases: str) -> list[list[Result]]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        attempt = next(attempts)
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
        if layout != "alone":
            shared["WORLD_SIZE"] = str(world)
        processes = [
            surroundings.python("-c", SCRIPT, layout, *phases, attempt=attempt, RANK=str(rank), **shared)
            for rank in range(world)
        ]
        results = []
        for process in processes:
            output = process.communicate(timeout=110)[0].decode()
            assert process.returncode == 0, output
            lines = [line.removeprefix("RESULT ") for line in output.splitlines() if line.startswith("RESULT ")]
            results.append([json.loads(line) for line in lines])
        return [list(phase) for phase in zip(*results, strict=True)]

    return run


def close(left: dict[str, list[float]], right: dict[str, list[float]]) -> bool:
    """Equal but for the order of sums, which another layout changes."""
    return left.keys() == right.keys() and all(
        left[name] == pytest.approx(right[name], rel=1e-3, abs=1e-5) for name in left
    )


def undisturbed(steps: int) -> dict[str, list[float]]:
    """The state after `steps` steps of one process."""
    import torch

    torch.manual_seed(5)
    up, down, seen = torch.nn.Linear(12, 10), torch.nn.Linear(10, 7), torch.zeros(3)
    optimizer = torch.optim.AdamW([*up.parameters(), *down.parameters()], lr=0.01, weight_decay=0.1)
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        seen += 1
        down(torch.relu(up(torch.arange(48.0).reshape(4, 12) / 48 + step))).pow(2).mean().backward()
        optimizer.step()
    state = {"seen": seen}
    for name, module in (("up", up), ("down", down)):
        state |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    for number, moments in optimizer.state_dict()["state"].items():
        state |= {f"{number}/{key}": value for key, value in moments.items()}
    return {name: value.double().flatten().tolist() for name, value in state.items()}


@pytest.mark.parametrize(("layout", "world"), [("fsdp", 2), ("hsdp", 4), ("tp+fsdp", 4)])
def test_blocks_come_back_from_memory(
    surroundings: Any, train: Callable[..., list[list[Result]]], layout: str, world: int
) -> None:
    surroundings.sidecar()
    saved, resumed = train(layout, world, "2", "0")
    assert [result["start"] for result in resumed] == [2] * world
    assert [result["came"] for result in resumed] == list(range(world))
    assert [result["state"] for result in resumed] == [result["state"] for result in saved]
    generation = Generation(2, 1)
    manifest = surroundings.catalog.manifest(generation)
    assert manifest.world_size == world
    assert verify_generation(surroundings.catalog, generation) == []
    stored: dict[tuple[str, tuple[int, ...]], int] = {}
    for entry in manifest.ranks:
        index = surroundings.catalog.index(manifest, entry)
        kept = {stored.tensor for stored in index.stored}
        for number in range(len(index.tensors)):
            spec = index.spec(number)
            if spec.shard is not None and spec.bytes:
                key = (spec.name, spec.shard.start)
                stored[key] = stored.get(key, 0) + (number in kept)
    assert set(stored.values()) == {1}
    blocks = {name for name, _ in stored}
    assert {"model/up.weight", "optimizer/state/0/exp_avg", "optimizer/state/0/exp_avg_sq"} <= blocks
    if layout == "hsdp":
        shares = [entry.raw_bytes for entry in manifest.ranks]
        assert max(shares) < 0.5 * sum(shares)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("fsdp", 2), ("fsdp", 3)),
        (("fsdp", 3), ("alone", 1)),
        (("alone", 1), ("fsdp", 2)),
        (("hsdp", 4), ("tp", 2)),
        (("tp+fsdp", 4), ("fsdp", 2)),
    ],
    ids=lambda case: f"{case[0]}-{case[1]}",
)
def test_blocks_come_back_on_another_number_of_ranks(
    surroundings: Any, train: Callable[..., list[list[Result]]], before: tuple[str, int], after: tuple[str, int]
) -> None:
    surroundings.sidecar()
    (saved,) = train(*before, "2")
    resumed, further = train(*after, "lose", "0", "1")
    assert [result["start"] for result in resumed] == [2] * after[1]
    assert [result["state"] for result in resumed] == [saved[0]["state"]] * after[1]
    assert [result["start"] for result in further] == [2] * after[1]
    assert close(further[0]["state"], undisturbed(3))
