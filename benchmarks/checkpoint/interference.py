"""Measure how much a training is slowed down by its checkpoints: a CPU trainer with a save every 10 steps against none.

    python -m benchmarks.checkpoint.interference [--json] [--quick] [--rounds 6] [--width 192]

One trainer process trains in segments, with saves and without, in the order none, saves, saves, none, and so on: what the
machine does meanwhile falls on both. The step after a save, the one behind it, and so on to the tenth are told apart: the
slow-down is the sum of the medians of all ten, saves included, over that of the same ten in segments without. So a step that
something else on the machine has hit counts as one of many, and what each save does to the steps behind it counts in full. The
sidecar is the real one and writes into a folder on the disk. Cases:

- `spare core`: the trainer has one processor, the sidecar another;
- `no spare core`: both have one and the same. What the sidecar computes, the trainer cannot: what it costs is told, no goal.

The control runs the same without a single save: what its ratio differs from 1 is the noise of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import Check, progress, publish

EVERY = 10
SAVES = 3
"""Of a segment; the last one has as many steps behind it as the others, so that its upload falls into the segment, too."""
GOAL = 1.03
WIDTH, LAYERS, CONTEXT, VOCABULARY = 192, 6, 128, 256


@dataclass(frozen=True)
class Segment:
    """Some steps, with saves or without."""

    saves: bool
    seconds: list[float]
    """Of each step, its save included."""
    blocked: list[float]
    """Of each save, as the trainer waited for it."""


def cycle(segments: list[Segment]) -> float:
    """Seconds of ten steps: of the first, second, … after a save the median each."""
    return sum(
        statistics.median(
            segment.seconds[start + position] for segment in segments for start in range(0, EVERY * SAVES, EVERY)
        )
        for position in range(EVERY)
    )


def train(rounds: int, width: int, target_seconds: float, *, saves: bool) -> None:
    """The trainer process: prints its segments as JSON."""
    import torch  # noqa: PLC0415 # the parent needs none

    from sternpost_checkpoint import Checkpointer  # noqa: PLC0415

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Embedding(VOCABULARY, width),
        *(
            torch.nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(LAYERS)
        ),
        torch.nn.Linear(width, VOCABULARY),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    checkpointer = Checkpointer(model=model, optimizer=optimizer)
    checkpointer.restore()
    data = torch.randint(0, VOCABULARY, (64, CONTEXT + 1))

    def step(batch: int, number: int) -> None:
        rows = data[[(number * batch + row) % len(data) for row in range(batch)]]
        logits = model(rows[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    # The batch that makes a step last about as long as asked for.
    step(1, 0)
    started = time.perf_counter()
    for number in range(3):
        step(2, number)
    batch = max(1, round(2 * target_seconds / ((time.perf_counter() - started) / 3)))
    count = 0
    for _ in range(4):  # the first saves load the codecs
        count += 1
        step(batch, count)
        if saves:
            checkpointer.save(count, wait=True)
    segments = []
    for number in range(4 * rounds):
        with_saves = saves and number % 4 in (1, 2)
        seconds, blocked = [], []
        for position in range(EVERY * SAVES):
            count += 1
            begun = time.perf_counter()
            if with_saves and position % EVERY == 0:
                checkpointer.save(count)
                blocked.append(time.perf_counter() - begun)
            step(batch, count)
            seconds.append(time.perf_counter() - begun)
        if with_saves:
            checkpointer.wait()
        segments.append({"saves": number % 4 in (1, 2), "seconds": seconds, "blocked": blocked})
        progress(f"segment {number + 1} of {4 * rounds}: {1e3 * statistics.mean(seconds):.1f} ms a step")
    elements = sum(parameter.numel() for parameter in model.parameters())
    print(
        json.dumps(
            {
                "segments": segments,
                "parameters": elements,
                "batch": batch,
                "skipped": getattr(checkpointer, "skipped", 0),
            }
        )
    )


def case(trainer_cpu: int, sidecar_cpu: int, arguments: argparse.Namespace, *, saves: bool) -> dict[str, Any]:
    """One case, in folders of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="interference-", dir="/dev/shm") as memory,
        tempfile.TemporaryDirectory(prefix="interference-", dir=arguments.folder) as disk,
    ):
        shm, control = Path(memory, "shm"), Path(memory, "control")
        shm.mkdir()
        control.mkdir()
        environment = {
            **os.environ,
            "STERNPOST_SHM_DIR": str(shm),
            "STERNPOST_CONTROL_DIR": str(control),
            "STERNPOST_CHECKPOINT": json.dumps({"storage": Path(disk).as_uri(), "policy": arguments.policy}),
            "STERNPOST_JOB_UID": "interference",
            "STERNPOST_ATTEMPT": "1-interference",
            "STERNPOST_ATTEMPT_NUMBER": "1",
            "STERNPOST_GRACE_SECONDS": "10",
            "OMP_NUM_THREADS": "1",
        }
        sidecar = _started(["-m", "sternpost_checkpoint", "sidecar"], environment, sidecar_cpu, quiet=True)
        try:
            trainer = _started(
                [
                    *("-m", "benchmarks.checkpoint.interference", "--role", "trainer" if saves else "control"),
                    *("--rounds", str(arguments.rounds), "--width", str(arguments.width)),
                    *("--step-seconds", str(arguments.step_seconds)),
                ],
                environment,
                trainer_cpu,
            )
            output, _ = trainer.communicate()
            if trainer.returncode != 0:
                raise RuntimeError(f"the trainer ended with exit code {trainer.returncode}")
        finally:
            sidecar.terminate()
            sidecar.wait(30)
        files = list(Path(disk).rglob("*.shard"))
        return summary(json.loads(output), stored=max((path.stat().st_size for path in files), default=0))


def _started(
    arguments: list[str], environment: dict[str, str], cpu: int, *, quiet: bool = False
) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL if quiet else subprocess.PIPE
    )
    os.sched_setaffinity(process.pid, {cpu})
    return process


def summary(found: dict[str, Any], stored: int) -> dict[str, Any]:
    """The figures of a case."""
    segments = [Segment(**segment) for segment in found["segments"]]
    plain = [segment for segment in segments if not segment.saves]
    saving = [segment for segment in segments if segment.saves]
    ratios = [cycle([with_saves]) / cycle([without]) for with_saves, without in zip(saving, plain, strict=True)]
    blocked = [seconds for segment in saving for seconds in segment.blocked]
    mean = cycle(plain) / EVERY
    figures = {
        "parameters": found["parameters"],
        "batch": found["batch"],
        "stepMilliseconds": round(1e3 * mean, 2),
        "slowdown": round(cycle(saving) / cycle(plain), 4),
        "slowdownOfPairs": [round(ratio, 4) for ratio in ratios],
        "skippedSaves": found["skipped"],
    }
    if blocked:
        figures["blockedMilliseconds"] = round(1e3 * statistics.median(blocked), 2)
        figures["shareOfBlocking"] = round(statistics.median(blocked) / EVERY / mean, 4)
        figures["storedMegabytes"] = round(stored / 1e6, 1)
    return figures


def main() -> None:
    """Run the cases, or be the trainer of one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="Two rounds with short steps: a look, no figure to quote.")
    parser.add_argument("--rounds", type=int, default=6, help="Of four segments.")
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--step-seconds", type=float, default=0.1)
    parser.add_argument("--policy", default="lossless")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="Where the storage is.")
    parser.add_argument("--only", choices=["control", "spare core", "no spare core"], help="One case.")
    parser.add_argument("--role", choices=["trainer", "control"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.step_seconds = min(arguments.rounds, 2), min(arguments.step_seconds, 0.04)
    if arguments.role is not None:
        train(arguments.rounds, arguments.width, arguments.step_seconds, saves=arguments.role == "trainer")
        return
    cpus = sorted(os.sched_getaffinity(0))
    spare = cpus[1] if len(cpus) > 1 else None
    cases: dict[str, dict[str, Any]] = {}
    for name, cpu, saves in (("control", spare, False), ("spare core", spare, True), ("no spare core", cpus[0], True)):
        if cpu is not None and arguments.only in (None, name):
            progress(name)
            cases[name] = case(cpus[0], cpu, arguments, saves=saves)
    checks = []
    if "spare core" in cases:
        value = cases["spare core"]["slowdown"]
        checks.append(
            Check("step time with a save every 10 steps, one spare core", value, "x", f"at most {GOAL}", value <= GOAL)
        )
    publish("checkpoint interference", {"cases": cases}, checks, as_json=arguments.json)


if __name__ == "__main__":
    main()
