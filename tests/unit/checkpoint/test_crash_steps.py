"""SIGKILL of the trainer at each step of a save: a whole state stays readable, and the next trainer goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(300)

SCRIPT = """
import ctypes, itertools, json, os, signal
import torch
from sternpost_checkpoint import Checkpointer
from sternpost_checkpoint.client import memory
from sternpost_checkpoint.client.copy_plan import BoundPlan
from sternpost_checkpoint.client.snapshot import Snapshots
from sternpost_checkpoint.shm.paths import SLOTS, rank_directory, slot_path
from sternpost_checkpoint.shm.slot import Slot, SlotWriter
from pathlib import Path

DIRECTORY = rank_directory(Path(os.environ["STERNPOST_SHM_DIR"]), 0)
LARGE, SMALL = 3, 5


def training():
    extra = {"step": 0} | {f"large{n}": torch.zeros(2_500_000) for n in range(LARGE)}
    extra |= {f"small{n}": torch.zeros(1024) for n in range(SMALL)} | {"odd": [torch.zeros(7), torch.zeros(7)]}
    model = torch.nn.Linear(4, 4)
    checkpointer = Checkpointer(model=model, extra=extra, measure_floor=False)
    checkpointer._run = 1  # no sidecar to register with: the slots alone are looked at
    return checkpointer, extra


def save(checkpointer, extra, step):
    extra["step"] = step
    for value in extra.values():
        for tensor in value if isinstance(value, list) else [value]:
            if isinstance(tensor, torch.Tensor):
                tensor.fill_(step)
    return checkpointer.save(step)


def die_at(owner, name, count, after):
    original, numbers = getattr(owner, name), itertools.count(1)

    def wrapped(*arguments, **options):
        number = next(numbers)  # two threads copy
        if number == count and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if number == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, staticmethod(wrapped) if owner in (ctypes, torch) else wrapped)


def readable():
    found = {}
    for index in range(SLOTS):
        slot = Slot.open(slot_path(DIRECTORY, index))
        header = slot.header()
        if header is None:
            continue
        meta = slot.meta(header)
        payload = slot.payload(header)
        for spec in meta.tensors:
            if spec.role == "extra":
                values = torch.frombuffer(payload, dtype=torch.float32, count=spec.bytes // 4, offset=spec.offset)
                assert bool((values == header.step).all()), (header.step, spec.name)
        assert meta.trees["extra"]["step"] == header.step
        found[header.step] = index
    return found


STEPS = {
    "choose": (memory.Slots, "choose", 1),
    "snapshot": (Snapshots, "take", 1),
    "plan": (memory.Slots, "plan", 1),
    "reserve": (SlotWriter, "ensure", 1),
    "begin": (SlotWriter, "begin", 1),
    "small": (torch, "cat", 1),
    "odd": (torch, "stack", 1),
    "first piece": (ctypes, "memmove", 1),
    "third piece": (ctypes, "memmove", 3),
    "last piece": (ctypes, "memmove", 9),
    "copy": (BoundPlan, "copy", 1),
    "meta": (SlotWriter, "put", 1),
    "sequence": (memory.Slots, "next_sequence", 1),
    "header": (SlotWriter, "put", 2),
    "state word": (SlotWriter, "put", 3),
    "publish": (SlotWriter, "publish", 1),
}
results = []
step = 0
for name, (owner, attribute, count) in STEPS.items():
    for after in (False, True):
        child = os.fork()
        if child == 0:
            checkpointer, extra = training()
            assert save(checkpointer, extra, step + 1) and save(checkpointer, extra, step + 2)
            die_at(owner, attribute, count, after)
            save(checkpointer, extra, step + 3)
            os._exit(9)  # the step was never reached
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        found = readable()
        results.append([name, after, killed, [kept - step for kept in sorted(found)]])
        step += 3
print("RESULT " + json.dumps(results), flush=True)
"""

PUBLISHED = [["state word", True], ["publish", True]]


def test_the_newest_state_survives_a_kill_at_every_step(surroundings: Any) -> None:
    process = surroundings.python("-c", SCRIPT)
    output = process.communicate(timeout=250)[0].decode()
    assert process.returncode == 0, output
    (line,) = [line for line in output.splitlines() if line.startswith("RESULT ")]
    results = json.loads(line.removeprefix("RESULT "))
    assert len(results) == 32
    for name, after, killed, steps in results:
        assert killed, (name, after)
        assert steps[-1] == (3 if [name, after] in PUBLISHED else 2), (name, after, steps)
    # From the begin of the copy on the older state is given up; before it, both are there.
    assert [steps for name, after, _, steps in results if name == "snapshot"] == [[1, 2], [1, 2]]
    assert [steps for name, after, _, steps in results if name == "third piece"] == [[2], [2]]
