"""Ranks that save and load with torch.distributed.checkpoint, as processes on gloo: `dcp_ranks.py TASK RANK WORLD PORT URI`."""

from __future__ import annotations

import os
import sys
import warnings

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from sternpost_checkpoint.dcp import SternpostReader, SternpostWriter


def whole(rows: int = 7, columns: int = 6, offset: float = 0.0) -> torch.Tensor:
    return torch.arange(rows * columns, dtype=torch.float32).reshape(rows, columns) + offset


def dtensors(world: int, offset: float = 0.0) -> dict[str, object]:
    """Uneven rows (some ranks hold none at 8 ranks), columns, a replica, a scalar, bf16, plain values of all kinds."""
    mesh = init_device_mesh("cpu", (world,))
    return {
        "model": {
            "rows": distribute_tensor(whole(offset=offset), mesh, [Shard(0)]),
            "columns": distribute_tensor(whole(offset=offset), mesh, [Shard(1)]),
            "few": distribute_tensor(whole(1, 3, offset), mesh, [Shard(0)]),
            "replica": distribute_tensor(whole(offset=offset), mesh, [Replicate()]),
            "plain": whole(3, 2, offset).bfloat16(),
            "scalar": torch.tensor(3.5 + offset),
            "empty": torch.empty(0, 4),
        },
        "optim": {"state": {"0": {"step": torch.tensor(9.0)}}, "lr": 1e-3 + offset, "betas": (0.9, float("inf"))},
        "steps": [1, 2, 3],
        "dtype": torch.bfloat16,
    }


def local_values(state: object) -> object:
    if isinstance(state, DTensor):
        return state.full_tensor()
    if isinstance(state, dict):
        return {key: local_values(value) for key, value in state.items()}
    return state


def same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


def save(world: int, uri: str) -> None:
    dcp.save(dtensors(world), storage_writer=SternpostWriter(uri, step=5))


def save_async(world: int, uri: str) -> None:
    for step in (5, 6):
        dcp.async_save(dtensors(world, offset=step - 5), storage_writer=SternpostWriter(uri, step=step)).result()


def save_async_in_a_process(world: int, uri: str) -> None:
    from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType

    kind = AsyncCheckpointerType.PROCESS
    dcp.async_save(dtensors(world), storage_writer=SternpostWriter(uri, step=5), async_checkpointer_type=kind).result()


def load(world: int, uri: str, offset: float = 0.0) -> None:
    state = dtensors(world, offset=100.0)
    state["steps"], state["dtype"] = [], None
    dcp.load(state, storage_reader=SternpostReader(uri))
    assert same(local_values(state), local_values(dtensors(world, offset=offset)))


def go_on(world: int, uri: str) -> None:
    """Load, save, load again: a run that goes on from what was loaded."""
    load(world, uri)
    dcp.save(dtensors(world, offset=1.0), storage_writer=SternpostWriter(uri))
    load(world, uri, offset=1.0)


def train(world: int, uri: str) -> None:
    """FSDP2 with AdamW: two steps, save, a third; load into a fresh model, the third again: the same weights."""
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    def build() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(1)
        model = torch.nn.Sequential(torch.nn.Linear(5, 9), torch.nn.ReLU(), torch.nn.Linear(9, 3))
        fully_shard(model, mesh=init_device_mesh("cpu", (world,)))
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
        torch.manual_seed(number)
        optimizer.zero_grad()
        model(torch.randn(4, 5)).square().mean().backward()
        optimizer.step()

    model, optimizer = build()
    for number in (1, 2):
        step(model, optimizer, number)
    weights, moments = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optimizer": moments}, storage_writer=SternpostWriter(uri, step=2))
    step(model, optimizer, 3)
    expected = [parameter.full_tensor() for parameter in model.parameters()]
    model, optimizer = build()
    step(model, optimizer, 7)
    weights, moments = get_state_dict(model, optimizer)
    state = {"model": weights, "optimizer": moments}
    dcp.load(state, storage_reader=SternpostReader(uri))
    set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    step(model, optimizer, 3)
    assert all(torch.equal(one, two.full_tensor()) for one, two in zip(expected, model.parameters(), strict=True))


def main(task: str, rank: str, world: str, port: str, uri: str) -> None:
    os.environ |= {"RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    try:
        globals()[task](int(world), uri)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
