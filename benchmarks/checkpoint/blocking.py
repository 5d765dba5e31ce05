"""Measure how long a save holds the training up, beside others and beside plain copies, all in one run.

    python -m benchmarks.checkpoint.blocking [--json] [--megabytes 1000] [--rounds 5] [--only sternpost]

The state is that of a GPT with AdamW: 97 parameters, 291 tensors and 97 step counters. In each round everybody saves it once, so
that a busy machine is busy for all. The floors copy as many bytes, from one piece of memory into pre-faulted shared
memory, with the same threads' loop. A second case has 667 parameters of 4 KB. The sidecar is a stand-in that costs nothing.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.checkpoint.blocking_peers import Peer, clear, peers
from benchmarks.checkpoint.stand_in import StandIn, trainer_environment
from benchmarks.results import Check, progress, publish
from sternpost_checkpoint import Checkpointer
from sternpost_checkpoint.client.copy_team import CopyTeam, chunks
from sternpost_checkpoint.shm.slot import SlotWriter

LAYERS = 24
WARM_GOAL, FIRST_GOAL = 1.15, 1.5


def gpt(megabytes: int) -> torch.nn.Module:
    """Four matrices a layer and an embedding; with AdamW `megabytes` in all, of which 9 parts in 10 are layers."""
    elements = megabytes * 1_000_000 / 12
    width = max(16, int((0.9 * elements / (12 * LAYERS)) ** 0.5) // 16 * 16)
    layers = [
        torch.nn.ModuleDict(
            {
                "attention": torch.nn.Linear(width, 3 * width, bias=False),
                "projection": torch.nn.Linear(width, width, bias=False),
                "up": torch.nn.Linear(width, 4 * width, bias=False),
                "down": torch.nn.Linear(4 * width, width, bias=False),
            }
        )
        for _ in range(LAYERS)
    ]
    vocabulary = max(16, int((elements - LAYERS * 12 * width * width) / width))
    return torch.nn.ModuleDict(
        {"embedding": torch.nn.Embedding(vocabulary, width), "layers": torch.nn.ModuleList(layers)}
    )


def many_small() -> torch.nn.Module:
    """667 parameters of 4 KB: 2,001 such tensors with AdamW's."""
    return torch.nn.ModuleList([torch.nn.Linear(32, 32, bias=False) for _ in range(667)])


def stepped(model: torch.nn.Module) -> torch.optim.Optimizer:
    """An optimizer with its state."""
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


def timed(call: Callable[[], object]) -> float:
    """Seconds that `call` takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


class Ours:
    """A Checkpointer in a folder of its own, from its first save on."""

    def __init__(self, folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.shm = Path(tempfile.mkdtemp(dir=folder, prefix="shm-"))
        self._stand_in = StandIn(self.shm)
        self._step = 0
        with trainer_environment(self.shm):
            # Made and restored before the first step, as in a training: the optimizer has no state yet.
            state = dict(optimizer.state)
            optimizer.state.clear()
            self._checkpointer = Checkpointer(model=model, optimizer=optimizer, extra={"tokens": 0})
            self._checkpointer.restore()
            optimizer.state.update(state)

    def save(self) -> float:
        """Seconds of one save, from the call to its return."""
        self._step += 1
        seconds = timed(lambda: self._checkpointer.save(self._step))
        if self._checkpointer.skipped:
            raise RuntimeError("a save was skipped: the stand-in did not settle")
        self._stand_in.settle()
        return seconds

    def close(self) -> None:
        """Free the memory."""
        self._stand_in.close()
        for path in self.shm.rglob("slot-*"):
            path.unlink()


class Floor:
    """Copies of as many bytes."""

    def __init__(self, folder: Path, size: int) -> None:
        self._path = folder / "floor"
        slot = SlotWriter(self._path)
        slot.ensure(size + 8192)
        target = torch.frombuffer(slot.memory, dtype=torch.uint8)
        self._source = torch.ones(size, dtype=torch.uint8)
        self._jobs = chunks([(target.data_ptr() + 4096, self._source.data_ptr(), size)])
        self._teams = {1: CopyTeam(1), 2: CopyTeam(2)}
        self._slot = slot

    def copy(self, threads: int) -> float:
        """Seconds of one copy."""
        return timed(lambda: self._teams[threads].run(self._jobs, lambda: None))

    def close(self) -> None:
        """Free the memory."""
        self._path.unlink()


def measure(
    model: torch.nn.Module, folders: dict[str, Path], rounds: int, others: list[Peer]
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """The figures of one case: seconds of each way to save, in order of the rounds."""
    optimizer = stepped(model)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()["state"]}
    tensors = [*model.state_dict().values(), *(t for moments in state["optimizer"].values() for t in moments.values())]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    times: dict[str, list[float]] = {}

    def note(name: str, seconds: float) -> None:
        times.setdefault(name, []).append(seconds)

    floor = Floor(folders["memory"], size)
    floor.copy(2)
    for number in range(3):
        ours = Ours(folders["memory"], model, optimizer)
        note("sternpost, first save", ours.save())
        note("memcpy, 2 threads, beside first saves", floor.copy(2))
        if number < 2:
            ours.close()
    for peer in others:
        progress(f"first save: {peer.name}")
        note(f"{peer.name}, first save", _peer_save(peer, state, folders))
    ours.save()
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}")
        for threads in (1, 2):
            note(f"memcpy, {threads} thread{'s' * (threads > 1)}", floor.copy(threads))
        note("sternpost", ours.save())
        for peer in others:
            note(peer.name, _peer_save(peer, state, folders))
        # Again at the end of the round: whatever the others left behind must not favour the floor.
        note("memcpy, 2 threads", floor.copy(2))
        note("sternpost", ours.save())
    ours.close()
    floor.close()
    return {"bytes": size, "tensors": len(tensors)}, times


def _peer_save(peer: Peer, state: dict[str, Any], folders: dict[str, Path]) -> float:
    folder = folders[peer.folder] / "peer"
    folder.mkdir(exist_ok=True)
    if peer.folder == "disk":
        seconds = timed(lambda: (peer.save(state, folder), _sync(folder)))
    else:
        seconds = timed(lambda: peer.save(state, folder))
    peer.finish()
    clear(folder)
    return seconds


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def judge(
    case: str, times: dict[str, list[float]], others: list[Peer], *, goals: bool
) -> tuple[dict[str, Any], list[Check]]:
    """Medians, also as multiples of the 2-thread floor, and whether the goals hold."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    floor = medians["memcpy, 2 threads"]
    table = {
        name: {"milliseconds": round(value * 1e3, 3), "floors": round(value / floor, 2)}
        for name, value in medians.items()
    }
    warm = medians["sternpost"] / floor
    first = medians["sternpost, first save"] / medians["memcpy, 2 threads, beside first saves"]
    checks = []
    if goals:
        checks.append(
            Check(f"{case}: warm save", round(warm, 3), "x memcpy, 2 threads", f"<= {WARM_GOAL}", warm <= WARM_GOAL)
        )
        checks.append(
            Check(
                f"{case}: first save", round(first, 3), "x memcpy, 2 threads", f"<= {FIRST_GOAL}", first <= FIRST_GOAL
            )
        )
    if others:
        best = min(others, key=lambda peer: medians[peer.name])
        share = medians["sternpost"] / medians[best.name]
        checks.append(
            Check(f"{case}: beside the best peer ({best.name})", round(share, 3), "x its time", "< 1", share < 1)
        )
    return table, checks


def main() -> None:
    """Parse the arguments, measure both cases, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--megabytes", type=int, default=1000, help="of the large case")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", choices=("large", "small"), action="append")
    parser.add_argument("--only", choices=("sternpost",), help="without the others")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": "0", "WORLD_SIZE": "1"})
    dist.init_process_group("gloo", rank=0, world_size=1)
    figures: dict[str, Any] = {"cases": {}}
    checks: list[Check] = []
    others = [] if options.only else peers(with_process=True)
    if not options.only and not any("torchsnapshot" in peer.name for peer in others):
        figures["missing"] = ["torchsnapshot is not installed: pip install torchsnapshot"]
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm", prefix="sternpost-blocking-") as memory,
        tempfile.TemporaryDirectory(prefix="sternpost-blocking-") as disk,
    ):
        folders = {"memory": Path(memory), "disk": Path(disk)}
        for case in options.case or ("large", "small"):
            progress(f"case: {case}")
            model = gpt(options.megabytes) if case == "large" else many_small()
            about, times = measure(model, folders, options.rounds, others)
            table, found = judge(case, times, others, goals=case == "large")
            figures["cases"][case] = {**about, "times": table}
            checks += found
    for peer in others:
        peer.close()
    dist.destroy_process_group()
    publish("checkpoint.blocking", figures, checks, as_json=options.json)


if __name__ == "__main__":
    main()
