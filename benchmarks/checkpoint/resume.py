"""Whether a training that is restored again and again from the storage is still the same training.

    python -m benchmarks.checkpoint.resume [--json] [--steps 300] [--seeds 3]

A small transformer with dropout learns Python's library source byte by byte; its data order, dropout and noise draw from
every random state there is. `lossless`: restored at ten points, from the storage, by objects made anew; at the end every byte of
weights, moments, random states and of the sampler must be that of an undisturbed run. `adaptive`: the same for several
seeds; the loss on held-out text must stay within what another seed changes. The sidecar is a real process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash

from benchmarks.checkpoint.stand_in import trainer_environment
from benchmarks.results import Check, progress, publish
from sternpost_checkpoint import Checkpointer
from sternpost_checkpoint.client.random_state import capture_random
from sternpost_checkpoint.shm.heartbeat import sidecar_alive

RESTORES = 10
CONTEXT, BATCH, WIDTH = 48, 12, 64


def text() -> torch.Tensor:
    """About two megabytes of source, uint8."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    data = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py"))[:60])
    return torch.frombuffer(bytearray(data[:2_000_000]), dtype=torch.uint8)


class Sampler:
    """A shuffled order of windows, and the place in it."""

    def __init__(self, size: int, seed: int) -> None:
        self._order = np.random.default_rng(seed).permutation(size)
        self.position = 0

    def take(self, count: int) -> list[int]:
        """The next windows."""
        taken = [int(self._order[(self.position + number) % len(self._order)]) for number in range(count)]
        self.position += count
        return taken

    def state_dict(self) -> dict[str, Any]:
        """The place."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go there."""
        self.position = state["position"]


class Model(torch.nn.Module):
    """Two causal layers on bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.token = torch.nn.Embedding(256, WIDTH)
        self.place = torch.nn.Parameter(torch.zeros(CONTEXT, WIDTH))
        self.layers = torch.nn.ModuleList(
            torch.nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.1, batch_first=True, norm_first=True)
            for _ in range(2)
        )
        self.head = torch.nn.Linear(WIDTH, 256)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits for the next byte of each."""
        hidden = self.token(tokens) + self.place
        mask = torch.nn.Transformer.generate_square_subsequent_mask(CONTEXT)
        for layer in self.layers:
            hidden = layer(hidden, src_mask=mask, is_causal=True)
        logits: torch.Tensor = self.head(hidden)
        return logits


class Run:
    """One life of a trainer."""

    def __init__(self, data: torch.Tensor, seed: int, *, saving: bool) -> None:
        random.seed(seed)
        np.random.seed(seed)  # one of the states that must come back
        torch.manual_seed(seed)
        self._data = data
        self.model = Model()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=2e-3)
        self._scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 1000)
        self.sampler = Sampler((len(data) - 100_000) // CONTEXT - 1, seed)
        self.step = 0
        self.checkpointer: Checkpointer | None = None
        if saving:
            extra = {"sampler": self.sampler, "scheduler": self._scheduler}
            self.checkpointer = Checkpointer(
                model=self.model, optimizer=self.optimizer, extra=extra, measure_floor=False
            )
            self.step = self.checkpointer.restore()

    def train(self, until: int) -> None:
        """Go on to step `until`, and save it."""
        self.model.train()
        while self.step < until:
            starts = [start * CONTEXT for start in self.sampler.take(BATCH)]
            windows = torch.stack([self._data[start : start + CONTEXT + 1] for start in starts]).long()
            if random.random() < 0.1:  # noqa: S311 # a state that must come back
                windows = windows.flip(0)
            scale = 1 + 0.01 * np.random.random()  # see above
            self.optimizer.zero_grad()
            logits = self.model(windows[:, :-1])
            (scale * torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())).backward()
            self.optimizer.step()
            self._scheduler.step()
            self.step += 1
        if self.checkpointer is not None:
            self.checkpointer.save(self.step, wait=True)

    def loss(self) -> float:
        """On text that it has not seen."""
        self.model.eval()
        held = self._data[-100_000:]
        count = 64
        windows = held[: count * (CONTEXT + 1)].view(count, CONTEXT + 1).long()
        with torch.no_grad():
            logits = self.model(windows[:, :-1])
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()).item()

    def fingerprints(self) -> dict[str, str]:
        """A hash of each part of the state."""
        optimizer = self.optimizer.state_dict()
        parts = {
            "weights": self.model.state_dict(),
            "moments": optimizer["state"],
            "scheduler": self._scheduler.state_dict(),
            "sampler": self.sampler.state_dict(),
            "random": capture_random(),
        }
        return {name: _hash(part) for name, part in parts.items()}


def _hash(value: Any) -> str:
    digest = xxhash.xxh3_128()

    def add(value: Any) -> None:
        if isinstance(value, dict):
            for key in value:
                digest.update(repr(key).encode())
                add(value[key])
        elif isinstance(value, torch.Tensor):
            digest.update(value.detach().contiguous().numpy().tobytes())
        elif isinstance(value, np.ndarray):
            digest.update(value.tobytes())
        else:
            digest.update(repr(value).encode())

    add(value)
    return digest.hexdigest()


@contextmanager
def sidecar(folder: Path, policy: str) -> Iterator[Path]:
    """A real sidecar with a storage in `folder`; gives the shared memory's folder."""
    shm, control = folder / "shm", folder / "control"
    shm.mkdir()
    control.mkdir()
    variables = {
        "STERNPOST_SHM_DIR": str(shm),
        "STERNPOST_CONTROL_DIR": str(control),
        "STERNPOST_CHECKPOINT": json.dumps({"storage": (folder / "storage").as_uri(), "policy": policy}),
        "STERNPOST_JOB_UID": "benchmark",
        "STERNPOST_GRACE_SECONDS": "30",
    }
    log = (folder / "sidecar.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "sternpost_checkpoint", "sidecar"],
        env={**os.environ, **variables},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        deadline = time.monotonic() + 60
        while not sidecar_alive(shm, time.time()):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the sidecar does not start: {(folder / 'sidecar.log').read_text()}")
            time.sleep(0.05)
        yield shm
    finally:
        process.terminate()
        process.wait(60)
        log.close()


def restored_again_and_again(data: torch.Tensor, seed: int, steps: int, policy: str) -> Run:
    """Train to `steps`, but begin anew RESTORES times, each time with nothing but the storage."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="sternpost-resume-") as name:
        folder = Path(name)
        with sidecar(folder, policy) as shm:
            for number in range(RESTORES + 1):
                for path in shm.glob("checkpoint/rank-0/slot-*"):
                    path.unlink()
                more = {"STERNPOST_ATTEMPT": f"{number + 1}-id", "STERNPOST_ATTEMPT_NUMBER": str(number + 1)}
                with trainer_environment(shm, {**more, "STERNPOST_JOB_UID": "benchmark"}):
                    run = Run(data, seed, saving=True)
                    expected = number * steps // (RESTORES + 1)
                    if run.step != expected:
                        raise RuntimeError(f"restored step {run.step}, not {expected}")
                    run.train((number + 1) * steps // (RESTORES + 1))
        return run


def main() -> None:
    """Parse the arguments, train, compare, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = text()
    undisturbed: list[float] = []
    adaptive: list[float] = []
    checks: list[Check] = []
    for seed in range(1, options.seeds + 1):
        progress(f"seed {seed}: undisturbed")
        whole = Run(data, seed, saving=False)
        whole.train(options.steps)
        undisturbed.append(whole.loss())
        if seed == 1:
            expected = whole.fingerprints()
            progress("lossless, restored from the storage ten times")
            found = restored_again_and_again(data, seed, options.steps, "lossless").fingerprints()
            for part, value in expected.items():
                same = found[part] == value
                checks.append(Check(f"lossless: {part} bit-identical", float(same), "1 = yes", "1", same))
        progress(f"seed {seed}: adaptive, restored from the storage ten times")
        adaptive.append(restored_again_and_again(data, seed, options.steps, "adaptive").loss())
    noise = max(undisturbed) - min(undisturbed)
    moved = max(abs(one - other) for one, other in zip(adaptive, undisturbed, strict=True))
    shift = abs(statistics.mean(adaptive) - statistics.mean(undisturbed))
    deviation = statistics.stdev(undisturbed) if len(undisturbed) > 1 else 0.0
    checks += [
        Check(
            "adaptive: largest change of a seed's loss",
            moved,
            "nats",
            f"<= range of seeds, {noise:.5f}",
            moved <= noise,
        ),
        Check(
            "adaptive: change of the mean loss",
            shift,
            "nats",
            f"<= deviation of seeds, {deviation:.5f}",
            shift <= deviation,
        ),
    ]
    figures = {"steps": options.steps, "restores": RESTORES, "lossUndisturbed": undisturbed, "lossAdaptive": adaptive}
    publish("checkpoint.resume", figures, checks, as_json=options.json)


if __name__ == "__main__":
    main()
