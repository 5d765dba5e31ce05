"""What is kept between saves is never stale: whatever is done to the objects, the slot holds what they hold."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_checkpoint.client import copy_plan
from sternpost_checkpoint.client.copy_team import CHUNK_BYTES, CopyTeam, chunks
from sternpost_checkpoint.client.device_copy import DeviceCopy, DeviceRun
from sternpost_checkpoint.client.memory import Slots
from sternpost_checkpoint.client.module_state import ModuleState
from sternpost_checkpoint.client.pinned import Pinned
from sternpost_checkpoint.client.snapshot import Snapshots, take_snapshot
from sternpost_checkpoint.client.training import Training
from sternpost_checkpoint.client.tree import decode
from sternpost_checkpoint.errors import CheckpointError
from sternpost_checkpoint.format.table import parse_meta
from sternpost_checkpoint.shm.layout import HEADER_BYTES
from sternpost_checkpoint.shm.slot import SlotWriter


def same(left: Any, right: Any) -> bool:
    """Bit for bit, types included."""
    if isinstance(left, torch.Tensor):
        return (left.dtype, left.shape) == (right.dtype, right.shape) and torch.equal(
            left.detach().resolve_conj().contiguous().view(-1).view(torch.uint8),
            right.detach().resolve_conj().contiguous().view(-1).view(torch.uint8),
        )
    if isinstance(left, np.ndarray | np.generic):
        return left.dtype == right.dtype and left.tobytes() == right.tobytes()
    if isinstance(left, dict):
        return [*map(repr, left)] == [*map(repr, right)] and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and (repr(left) == repr(right))


class Bench:
    """Saves states into slots, and reads back what is there."""

    def __init__(self, folder: Path) -> None:
        self.slots = Slots(folder, threads=2)
        self.snapshots = Snapshots(replicated=True, rank=0, world_size=1)
        self.index = 0

    def saved(self, states: dict[str, Any]) -> dict[str, Any]:
        """The trees that a reader of the slot sees."""
        self.index = 1 - self.index
        snapshot = self.snapshots.take(states)
        offset = self.slots.write(self.index, snapshot)
        memory = self.slots._slots[self.index].memory
        meta = parse_meta(memory[offset : offset + len(snapshot.meta)], "slot")
        assert meta.tensors == snapshot.layout.specs
        payload = torch.frombuffer(bytearray(memory[HEADER_BYTES:offset] or b"\0"), dtype=torch.uint8)
        tensors = [copy_plan.view_of(payload, spec) for spec in meta.tensors]
        return {role: decode(tree, tensors) for role, tree in meta.trees.items()}

    def check(self, states: dict[str, Any]) -> None:
        """Save and compare."""
        assert same(self.saved(states), states)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def state(**extra: Any) -> dict[str, Any]:
    """Something of every kind of copy: small, ragged, alone in its kind, large, not dense, empty, complex."""
    generator = torch.Generator().manual_seed(1)
    model = {f"small{number}": torch.randn(16, 16, generator=generator) for number in range(5)}
    model |= {f"odd{number}": torch.randn(7, generator=generator) for number in range(4)}
    model |= {f"half{number}": torch.randn(64, generator=generator).bfloat16() for number in range(3)}
    model |= {
        "large": torch.randn(300, 1000, generator=generator),
        "turned": torch.randn(200, 300, generator=generator).t(),
        "empty": torch.empty(0, 3),
        "complex": torch.randn(9, generator=generator).to(torch.complex64).conj(),
        "scalar": torch.tensor(3.5),
        "flag": torch.tensor([True, False, True]),
    }
    return {"model": model, "extra": {"step": 1, "rate": 0.5, "nested": {"a": [1, 2, {"b": None}]}, **extra}}


def test_every_kind_of_tensor_arrives(bench: Bench) -> None:
    states = state(array=np.arange(5), number=np.float32(2.5))
    for _ in range(4):
        bench.check(states)
        for tensor in states["model"].values():
            tensor.copy_(torch.ones_like(tensor) if tensor.dtype is torch.bool else tensor * 2)
    assert bench.snapshots.layouts == 1


def _edit(states: dict[str, Any], name: str, make: Callable[[torch.Tensor], torch.Tensor]) -> None:
    states["model"][name].data = make(states["model"][name])


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "other value": lambda s: s["model"]["small0"].add_(1),
    "other memory": lambda s: _edit(s, "small0", lambda t: t + 1),
    "other memory, large": lambda s: _edit(s, "large", lambda t: t + 1),
    "other tensor": lambda s: s["model"].update(small1=s["model"]["small1"] + 1),
    "other shape": lambda s: _edit(s, "small2", lambda t: t.view(256)),
    "other shape of equal memory, large": lambda s: _edit(s, "large", lambda t: t.view(1000, 300)),
    "turned": lambda s: _edit(s, "small3", lambda t: t.t()),
    "turned, large": lambda s: _edit(s, "large", lambda t: t.view(1000, 300).t()),
    "other dtype": lambda s: _edit(s, "small4", lambda t: t.half()),
    "resized": lambda s: s["model"]["odd0"].resize_(3),
    "squeezed": lambda s: s["model"]["odd1"].unsqueeze_(0),
    "transposed in place": lambda s: s["model"]["small0"].t_(),
    "set to another's memory": lambda s: s["model"]["small0"].set_(s["model"]["small1"]),
    "new tensor": lambda s: s["model"].update(more=torch.ones(3)),
    "gone": lambda s: s["model"].pop("small1"),
    "other name": lambda s: s["model"].update(renamed=s["model"].pop("flag")),
    "other order": lambda s: s["model"].update(small0=s["model"].pop("small0")),
    "swapped": lambda s: s["model"].update(small0=s["model"]["small1"], small1=s["model"]["small0"]),
    "tied": lambda s: s["model"].update(small0=s["model"]["small1"]),
    "plain value": lambda s: s["extra"].update(step=2),
    "plain value of another type": lambda s: s["extra"].update(step=True),
    "negative zero": lambda s: s["extra"].update(rate=-0.0),
    "deep value": lambda s: s["extra"]["nested"]["a"][2].update(b="x"),
    "deep key": lambda s: s["extra"]["nested"]["a"][2].update({"$": 3}),
    "key of another type": lambda s: s["extra"].update(nested={1: 1}),
    "tensor where a value was": lambda s: s["extra"].update(step=torch.ones(2)),
    "value where a tensor was": lambda s: s["model"].update(flag=5),
    "conjugated in the same memory": lambda s: s["model"].update(complex=s["model"]["complex"].conj()),
    "value grows": lambda s: s["extra"].update(text="x" * 100_000),
}


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(sorted(CHANGES)), max_size=6), st.integers(0, 3))
def test_whatever_changes_is_seen(changes: list[str], rounds: int) -> None:
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="test-of-sternpost-", dir="/dev/shm"))
    try:
        bench, states = Bench(folder), state()
        states["extra"]["rate"] = 0.0
        for change in changes:
            for _ in range(rounds):
                bench.check(states)
            try:
                CHANGES[change](states)
            except (KeyError, RuntimeError, AttributeError):
                continue  # an earlier change does not allow it
        bench.check(states)
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("change", sorted(CHANGES))
def test_each_change_is_seen_after_several_saves(bench: Bench, change: str) -> None:
    states = state()
    states["extra"]["rate"] = 0.0
    for _ in range(3):
        bench.check(states)
    CHANGES[change](states)
    for _ in range(3):
        bench.check(states)


def test_weights_that_were_tied_come_apart(bench: Bench) -> None:
    shared = torch.nn.Parameter(torch.ones(20, 20))
    states = {"model": {"a": shared, "b": shared, "c": torch.zeros(20, 20)}}
    bench.check(states)
    assert len(bench.snapshots.take(states).tensors) == 2
    states["model"]["b"] = torch.nn.Parameter(torch.full((20, 20), 2.0))
    bench.check(states)
    assert len(bench.snapshots.take(states).tensors) == 3


def test_tensors_made_anew_each_time_do_not_cost_a_plan_each_time(bench: Bench) -> None:
    states = state()
    plans = set()
    keep = []
    for number in range(8):
        states["extra"]["fresh"] = {"a": torch.full((8,), float(number)), "b": np.full(3, number)}
        keep.append(states["extra"]["fresh"])  # so that no address is used twice
        bench.check(states)
        plans.add(id(bench.slots._plan))
        keep.append(bench.slots._plan)
    assert bench.snapshots.layouts == 1
    assert len(plans) <= 3


def test_a_learning_rate_costs_no_layout_and_no_json_of_the_moments(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(20)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    training = Training(model, optimizer, {})
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    bench.check(training.states())
    encoded: list[str] = []
    from sternpost_checkpoint.client import snapshot

    original = snapshot.encode
    monkeypatch.setattr(
        snapshot, "encode", lambda value, path, take: (encoded.append(path), original(value, path, take))[1]
    )
    optimizer.param_groups[0]["lr"] = 0.05
    optimizer.step()
    states = training.states()
    assert same(bench.saved(states)["optimizer"], states["optimizer"])
    assert encoded == ["optimizer/param_groups"]
    assert bench.snapshots.layouts == 1


def test_freed_memory_is_an_error_and_no_crash(bench: Bench) -> None:
    states = state()
    bench.check(states)
    for name in ("large", "small0"):
        changed = state()
        bench.check(changed)
        changed["model"][name].untyped_storage().resize_(0)
        with pytest.raises(CheckpointError, match=f"model/{name} has no memory behind it"):
            bench.saved(changed)


def test_a_state_that_cannot_be_held_leaves_nothing_behind(bench: Bench) -> None:
    states = state()
    bench.check(states)
    states["extra"]["nested"] = object()
    with pytest.raises(CheckpointError, match="extra/nested"):
        bench.saved(states)
    states["extra"]["nested"] = 5
    bench.check(states)


class Shouting(torch.nn.Linear):
    """A module with a state of its own making."""

    def get_extra_state(self) -> Any:
        return {"loud": 1}

    def set_extra_state(self, state: Any) -> None:
        pass


def _hook(module: torch.nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    state[prefix + "more"] = torch.ones(2)


MODULE_CHANGES: dict[str, Callable[[torch.nn.Sequential], Any]] = {
    "nothing": lambda m: None,
    "parameter exchanged": lambda m: setattr(m[0], "weight", torch.nn.Parameter(torch.ones(4, 4))),
    "parameter removed": lambda m: setattr(m[0], "bias", None),
    "buffer added": lambda m: m[0].register_buffer("kept", torch.ones(3)),
    "transient buffer added": lambda m: m[0].register_buffer("gone", torch.ones(3), persistent=False),
    "buffer becomes transient": lambda m: m[1]._non_persistent_buffers_set.add("running_mean"),
    "module exchanged": lambda m: m.__setitem__(0, torch.nn.Linear(4, 4)),
    "module added": lambda m: m.append(torch.nn.Linear(4, 4)),
    "own module added": lambda m: m.append(Shouting(4, 4)),
    "hook added": lambda m: m[0]._register_state_dict_hook(_hook),
    "method of the object": lambda m: vars(m[0]).update(state_dict=lambda *_, **__: {}),
    "class exchanged": lambda m: setattr(m[0], "__class__", Shouting),
    "container exchanged": lambda m: setattr(m[0], "_parameters", dict(m[0]._parameters)),
}


@pytest.mark.parametrize("change", sorted(MODULE_CHANGES))
def test_the_state_of_a_module_is_what_state_dict_says(change: str) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 4))
    module[2].weight = module[0].weight
    taker = ModuleState(module)
    for _ in range(2):
        assert same(dict(taker.take()), dict(module.state_dict()))
    MODULE_CHANGES[change](module)
    for _ in range(2):
        assert same(dict(taker.take()), dict(module.state_dict()))


def test_chunks_cover_everything_and_helpers_end_before_an_error_leaves() -> None:
    size = 5 * CHUNK_BYTES + 3
    source, target = torch.randint(0, 255, (size,), dtype=torch.uint8), torch.zeros(size, dtype=torch.uint8)
    jobs = chunks([(target.data_ptr(), source.data_ptr(), size)])
    assert sum(job[2] for job in jobs) == size
    team = CopyTeam(3)
    team.run(jobs, lambda: None)
    assert torch.equal(source, target)

    def fail() -> None:
        raise CheckpointError("meanwhile")

    for _ in range(20):
        with pytest.raises(CheckpointError, match="meanwhile"):
            team.run(jobs, fail)
    assert team._done.empty()


def test_families_are_stored_by_one_rank() -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(5)))
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    training = Training(model, optimizer, {})
    layouts = [
        Snapshots(replicated=True, rank=rank, world_size=3, families=training.families).take(training.states()).layout
        for rank in range(3)
    ]
    owner = {
        spec.name: rank
        for rank, layout in enumerate(layouts)
        for spec in layout.specs
        if spec.stored and spec.replicated
    }
    assert len(set(owner.values())) == 3
    for number, name in enumerate(name for name, _ in model.named_parameters()):
        moments = {owner[f"optimizer/state/{number}/{moment}"] for moment in ("exp_avg", "exp_avg_sq", "step")}
        assert moments == {owner[f"model/{name}"]}


class FakeRuntime:
    """As much of the CUDA runtime as is used."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.registered: dict[int, int] = {}

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:  # noqa: N802 # its name
        assert flags == 0
        if self.code == 0:
            self.registered[address] = size
        return self.code

    def cudaHostUnregister(self, address: int) -> int:  # noqa: N802 # its name
        del self.registered[address]
        return 0


def test_memory_is_pinned_once_and_moved_when_it_is_mapped_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    runtime, pinned = FakeRuntime(), Pinned()
    pinned.move(None, 1, 1)
    for address, size in ((100, 10), (100, 10), (200, 20)):
        pinned.move(runtime, address, size)
        assert runtime.registered == {address: size}
    pinned.release(runtime)
    assert runtime.registered == {}
    refusing, pinned = FakeRuntime(2), Pinned()
    for _ in range(2):
        pinned.move(refusing, 100, 10)
    assert caplog.text.count("cannot be pinned") == 1


def test_device_copies_wait_for_the_training_and_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    class Backend:
        class Stream:
            def __init__(self, device: torch.device) -> None:
                events.append("stream")

            def wait_stream(self, other: object) -> None:
                events.append(f"wait for {other}")

        class Event:
            def record(self, stream: object) -> None:
                events.append("record")

            def synchronize(self) -> None:
                events.append("synchronize")

        @staticmethod
        def current_stream(device: torch.device) -> str:
            return "training"

        @staticmethod
        def stream(stream: object) -> Any:
            import contextlib

            return contextlib.nullcontext()

    monkeypatch.setattr(torch, "get_device_module", lambda device: Backend)
    tensors = [torch.full((4,), 1.0), torch.full((3,), 2.0), torch.full((2, 3), 3.0).t()]
    gathered, place, alone = (torch.zeros(size, dtype=torch.uint8) for size in (80, 80, 24))
    rows = [gathered[:16].view(torch.float32), gathered[64:76].view(torch.float32)]
    run = DeviceRun(tensors[:2], rows, gathered, place)
    copy = DeviceCopy([(2, alone.view(torch.float32).view(3, 2))], [run])
    for _ in range(2):
        events.clear()
        with torch.no_grad():
            copy.start(tensors)
            assert events[-2:] == ["wait for training", "record"]
            copy.finish()
        assert events[-1] == "synchronize"
    assert place[:16].view(torch.float32).tolist() == [1] * 4
    assert place[64:76].view(torch.float32).tolist() == [2] * 3
    assert torch.equal(alone.view(torch.float32).view(3, 2), tensors[2])


def test_the_floor_leaves_nothing_behind(tmp_path: Path) -> None:
    floor = Slots(tmp_path).measure_floor()
    assert 0 < floor < 1e-6
    assert list(tmp_path.iterdir()) == []
    assert math.isfinite(floor)


def test_a_snapshot_of_many_small_tensors_is_taken_in_a_moment(bench: Bench) -> None:
    """Not a benchmark: ten times as long would still pass."""
    states = {"model": {f"t{number}": torch.zeros(1024) for number in range(2000)}}
    bench.slots.write(0, bench.snapshots.take(states))
    best = math.inf
    for _ in range(5):
        started = time.perf_counter()
        bench.slots.write(0, bench.snapshots.take(states))
        best = min(best, time.perf_counter() - started)
    assert best < 0.1
    assert isinstance(bench.slots._slots[0], SlotWriter)
    assert take_snapshot(states, replicated=True, rank=0, world_size=1).layout.specs == bench.snapshots._layout.specs
