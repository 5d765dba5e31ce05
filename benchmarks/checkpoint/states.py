"""Record states of real trainings for the codecs to be measured on.

    python -m benchmarks.checkpoint.states [--only gpt] [--seconds 50]

Each of three architectures is trained with AdamW (fp32 master, weights rounded to bf16 or fp16) at a learning rate of
3e-4. From an early and a late step branches go on at 3e-6, 3e-5 or 3e-4; of each branch the state after the branch has
settled is kept as the base, and the states 1, 10 and 50 steps later. What is there already is not trained again, so
that `--seconds` may split the work.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import progress

RATES = (3e-6, 3e-5, 3e-4)
INTERVALS = (1, 10, 50)
WEIGHTS = ("bfloat16", "float16")
STAGES = {"early": 20, "late": 400}
"""Steps at 3e-4 before a branch leaves."""
SETTLE = 5
"""Steps of a branch before its base: the moments must belong to its learning rate."""
BETAS, EPSILON, DECAY = (0.9, 0.95), 1e-8, 0.1
KINDS = ("weight", "master", "exp_avg", "exp_avg_sq")

Array = np.ndarray[Any, np.dtype[Any]]
State = dict[str, Array]
"""KIND/PARAMETER to its values; 16-bit floats as uint16."""


def cache_folder() -> Path:
    """Where states are kept: STERNPOST_BENCHMARK_CACHE, or the user's cache folder."""
    default = Path.home() / ".cache" / "sternpost-benchmarks"
    return Path(os.environ.get("STERNPOST_BENCHMARK_CACHE", default)) / "states-1"


@dataclass(frozen=True)
class Branch:
    """One training whose states are recorded."""

    architecture: str
    stage: str
    rate: float
    weights: str

    @property
    def folder(self) -> Path:
        """Of its four states."""
        return cache_folder() / self.architecture / f"{self.stage}-{self.rate:g}-{self.weights}"

    def recorded(self) -> bool:
        """Whether all states are there."""
        return (self.folder / f"{max(INTERVALS)}.npz").exists()

    def state(self, after: int) -> State:
        """The state `after` steps from the base (0: the base). Raises OSError when it was not recorded."""
        with np.load(self.folder / f"{after}.npz", allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}


def branches(architectures: tuple[str, ...] = ("gpt", "mixture", "convolutional")) -> Iterator[Branch]:
    """All trainings of the benchmark."""
    for architecture in architectures:
        for stage in STAGES:
            for rate in RATES:
                for weights in WEIGHTS:
                    yield Branch(architecture, stage, rate, weights)


class Trainer:
    """A model whose forward pass sees 16-bit weights, and the fp32 master that AdamW updates."""

    def __init__(self, architecture: str, weights: str, rate: float) -> None:
        import torch  # noqa: PLC0415 # only recording needs it

        from benchmarks.checkpoint.states_models import ARCHITECTURES  # noqa: PLC0415

        torch.manual_seed(7)
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        self._torch = torch
        self._dtype = getattr(torch, weights)
        model, batches = ARCHITECTURES[architecture]
        self.model = model()
        self.batch = batches(self.model, 11)
        self.masters = [parameter.detach().clone() for parameter in self.model.parameters()]
        self.optimizer = torch.optim.AdamW(
            self.masters, lr=rate, betas=BETAS, eps=EPSILON, weight_decay=DECAY, fused=True
        )
        self._round()

    def _round(self) -> None:
        with self._torch.no_grad():
            for parameter, master in zip(self.model.parameters(), self.masters, strict=True):
                parameter.copy_(master.to(self._dtype))

    def train(self, steps: int) -> float:
        """Take some steps; returns the last loss."""
        loss = float("nan")
        for _ in range(steps):
            self.model.zero_grad()
            value = self.batch()
            value.backward()
            loss = float(value.detach())
            for parameter, master in zip(self.model.parameters(), self.masters, strict=True):
                # An expert without a token has no gradient; a trainer of real size reduces zeros for it.
                master.grad = self._torch.zeros_like(master) if parameter.grad is None else parameter.grad
            self.optimizer.step()
            self._round()
        return loss

    def state(self) -> State:
        """Everything AdamW would have saved."""
        state: State = {}
        for (name, _), master in zip(self.model.named_parameters(), self.masters, strict=True):
            moments = self.optimizer.state[master]
            state[f"weight/{name}"] = master.to(self._dtype).view(self._torch.int16).numpy().view(np.uint16).copy()
            state[f"master/{name}"] = master.numpy().copy()
            for kind in ("exp_avg", "exp_avg_sq"):
                state[f"{kind}/{name}"] = moments[kind].numpy().copy()
        return state

    def load(self, state: State) -> None:
        """Go on from a state."""
        for (name, _), master in zip(self.model.named_parameters(), self.masters, strict=True):
            master.copy_(self._torch.from_numpy(state[f"master/{name}"]))
            moments: dict[str, Any] = {"step": self._torch.tensor(float(max(STAGES.values())))}
            for kind in ("exp_avg", "exp_avg_sq"):
                moments[kind] = self._torch.from_numpy(state[f"{kind}/{name}"].copy())
            self.optimizer.state[master] = moments
        self._round()


def _write(path: Path, state: State) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, **state)  # type: ignore[arg-type] # names of arrays, as documented
    partial.replace(path)


def _trunk(architecture: str) -> None:
    """Train to the steps at which branches leave."""
    folder = cache_folder() / architecture
    if all((folder / f"{stage}.npz").exists() for stage in STAGES):
        return
    trainer, done = Trainer(architecture, "bfloat16", 3e-4), 0
    for stage, steps in STAGES.items():
        started = time.monotonic()
        loss = trainer.train(steps - done)
        done = steps
        _write(folder / f"{stage}.npz", trainer.state())
        progress(f"{architecture} {stage}: loss {loss:.2f}, {time.monotonic() - started:.0f} s")


def _record(branch: Branch) -> None:
    with np.load(cache_folder() / branch.architecture / f"{branch.stage}.npz", allow_pickle=False) as arrays:
        state = {name: arrays[name] for name in arrays.files}
    trainer = Trainer(branch.architecture, branch.weights, branch.rate)
    trainer.load(state)
    started, done = time.monotonic(), 0
    trainer.train(SETTLE)
    for after in (0, *INTERVALS):
        trainer.train(after - done)
        done = after
        _write(branch.folder / f"{after}.npz", trainer.state())
    progress(f"{branch.folder.relative_to(cache_folder())}: {time.monotonic() - started:.0f} s")


def record(wanted: list[Branch], seconds: float = float("inf")) -> bool:
    """Train what is missing; False when `seconds` were over first."""
    started = time.monotonic()
    for branch in wanted:
        if not branch.recorded():
            if time.monotonic() - started > seconds:
                return False
            _trunk(branch.architecture)
            _record(branch)
    return True


def main() -> None:
    """Record all, or what `--only` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("gpt", "mixture", "convolutional"))
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no further branch after so long")
    options = parser.parse_args()
    wanted = list(branches((options.only,) if options.only else ("gpt", "mixture", "convolutional")))
    if not record(wanted, options.seconds):
        progress("time is up; run again to go on")


if __name__ == "__main__":
    main()
