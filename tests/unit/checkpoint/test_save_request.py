"""A checkpoint that is asked for from outside: `due`, and a save without the others' vote."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest
import torch

from sternpost_checkpoint import Checkpointer
from sternpost_checkpoint.client.save_request import SaveRequest
from sternpost_checkpoint.lineage import Generation


def ask(surroundings: Any, step: object, **spec: object) -> None:
    path = surroundings.control / "attempt.json"
    temporary = path.with_suffix(".new")
    value = {"number": 1, "id": "1-id", "jobUid": "uid-1", "action": "run", "saveAtStep": step, **spec}
    temporary.write_text(json.dumps({"spec": value}))
    temporary.replace(path)


def make() -> Checkpointer:
    model = torch.nn.Linear(4, 4)
    checkpointer = Checkpointer(model=model, optimizer=torch.optim.AdamW(model.parameters()))
    checkpointer.restore()
    return checkpointer


def test_due_at_exactly_that_step_and_only_once_it_is_asked_for(
    surroundings: Any, running: Callable[..., Any], trainer: Callable[..., None]
) -> None:
    trainer(1)
    running()
    checkpointer = make()
    assert [checkpointer.due(step) for step in range(1, 4)] == [False] * 3
    ask(surroundings, 6)
    assert [step for step in range(4, 9) if checkpointer.due(step)] == [6]
    ask(surroundings, 12)
    assert [step for step in range(9, 15) if checkpointer.due(step)] == [12]


@pytest.mark.parametrize(
    "spec",
    [
        {"id": "2-id"},
        {"jobUid": "another"},
        {"action": "hold"},
        {"saveAtStep": None},
        {"saveAtStep": "5"},
        {"saveAtStep": True},
        {"saveAtStep": 5.0},
    ],
)
def test_what_is_not_asked_of_this_attempt_is_not_due(surroundings: Any, spec: dict[str, object]) -> None:
    ask(surroundings, 5, **spec)
    assert SaveRequest(surroundings.control, "uid-1", "1-id").step() is None


def test_the_file_is_read_only_when_it_changed(surroundings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from sternpost_checkpoint.client import save_request

    reads = []
    read = save_request.read_json
    monkeypatch.setattr(save_request, "read_json", lambda path: reads.append(path) or read(path))
    request = SaveRequest(surroundings.control, "uid-1", "1-id")
    assert request.step() is None
    ask(surroundings, 5)
    assert [request.step() for _ in range(50)] == [5] * 50
    assert len(reads) == 1


def test_garbage_and_a_file_that_is_gone_leave_what_was_heard(surroundings: Any) -> None:
    request = SaveRequest(surroundings.control, "", "1-id")
    ask(surroundings, 5)
    assert request.step() == 5
    path = surroundings.control / "attempt.json"
    path.write_text('{"spec": {')
    assert request.step() == 5
    path.unlink()
    assert request.step() == 5
    assert SaveRequest(None, "", "1-id").step() is None


def test_a_save_that_was_asked_for_is_committed_and_restored(
    surroundings: Any, running: Callable[..., Any], trainer: Callable[..., None], helpers: Any
) -> None:
    trainer(1)
    running()
    checkpointer = make()
    assert checkpointer.save(2, wait=True)
    ask(surroundings, 3)
    assert checkpointer.due(3)
    assert checkpointer.save(3)
    helpers.until(lambda: Generation(3, 1) in _complete(surroundings), what="the commit")
    # What others may lack is not waited for; asked for once more, it is no second copy.
    assert checkpointer._last is not None
    assert checkpointer._last[1].step == 2
    assert checkpointer.save(3, wait=True)
    assert checkpointer._last[1].step == 3
    ask(surroundings, 5)
    assert checkpointer.due(5)
    assert checkpointer.save(5)
    checkpointer.close()
    trainer(2)
    surroundings.set_attempt(2)
    assert make()._last_step == 5


def _complete(surroundings: Any) -> list[Generation]:
    return [files.generation for files in surroundings.catalog.generations() if files.complete]


LATE = """
import os, json, torch
import torch.distributed as dist
from pathlib import Path
from sternpost_checkpoint import Checkpointer

dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(5)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(8, 8))
checkpointer = Checkpointer(model=model, optimizer=torch.optim.AdamW(model.parameters()))
start = checkpointer.restore()
hears = rank == 0 or os.environ["ALL_HEAR"] == "1"
for step in range(start + 1, 7):
    model(torch.randn(2, 8)).pow(2).mean().backward()
    if step % 4 == 0 or (hears and checkpointer.due(step)):
        checkpointer.save(step, wait=step % 4 == 0)
checkpointer.close()
print("ENDED", rank, flush=True)
dist.destroy_process_group()
"""


@pytest.mark.parametrize("all_hear", [False, True])
def test_a_rank_that_hears_of_it_too_late_disturbs_nobody(surroundings: Any, all_hear: bool, helpers: Any) -> None:
    surroundings.keep = 9
    surroundings.sidecar()
    ask(surroundings, 3)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    environment["ALL_HEAR"] = str(int(all_hear))
    processes = [surroundings.forked(LATE, RANK=str(rank), **environment) for rank in range(2)]
    for process in processes:
        output = process.communicate(timeout=400)[0].decode()
        assert process.returncode == 0, output
    wanted = [Generation(3, 1), Generation(4, 1)] if all_hear else [Generation(4, 1)]
    helpers.until(lambda: _complete(surroundings) == wanted, what="the commits")
    assert "ENDED" in output
