"""Inject 15 faults into simulated jobs, replay the recordings, and compare what is said with what was done.

python -m benchmarks.eagle_eye.faults --seeds 50 --json    # all of it: at most half an hour on two processors
python -m benchmarks.eagle_eye.faults --seeds 2            # a first look
python -m benchmarks.eagle_eye.faults --write FOLDER --seeds 1 --fault slow-nic    # recordings to look at, with labels
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.eagle_eye.injected import FAULTS
from benchmarks.eagle_eye.recording import Recording, record
from benchmarks.eagle_eye.scoring import Outcome, by_fault, figures, judge_outcome
from benchmarks.eagle_eye.text import lines
from benchmarks.eagle_eye.vectors import vectors
from benchmarks.results import Check, progress, publish
from sternpost_eagle_eye.replay import Verdict, replay_vectors
from sternpost_eagle_eye.replay.recording import Recording as RecordingFile

SIZES = (8, 16, 32, 64)
SHARES = (0.62, 0.24, 0.09, 0.05)
HEALTHY_SHARES = (0.75, 0.17, 0.05, 0.03)
"""An hour of a large job is long to judge."""
TEXT_EVERY = 20
HOURS_PER_SEED = 4
BUDGET_MINUTES = 30.0
GOALS = {
    "fail-stop": (3.0, "s"),
    "hard": (2.0, "scrapes"),
    "hang": (1.5, "limits of the phase"),
    "slow-1.3": (60.0, "s"),
    "slow-2": (20.0, "s"),
}


@dataclass(frozen=True)
class Task:
    """One recording to make and to judge."""

    seed: int
    workers: int
    fault: str | None
    as_text: bool


def plan(seeds: int, hours: int, faults: Iterable[str], first: int = 0) -> list[Task]:
    """Every fault once a seed, and healthy hours; every twentieth also as text."""
    random = np.random.default_rng(7)
    wanted: list[tuple[int, str | None]] = [(seed, fault) for seed in range(first, first + seeds) for fault in faults]
    sizes = [*random.choice(SIZES, len(wanted), p=SHARES), *random.choice(SIZES, hours, p=HEALTHY_SHARES)]
    wanted += [(first + number, None) for number in range(hours)]
    return [
        Task(seed, int(size), fault, index % TEXT_EVERY == 0)
        for index, ((seed, fault), size) in enumerate(zip(wanted, sizes, strict=True))
    ]


def recording_of(task: Task) -> Recording:
    """Make it."""
    return record(task.seed, task.workers, next((f for f in FAULTS if f.name == task.fault), None))


def run(task: Task) -> Outcome:
    """Make the recording, replay it, compare."""
    recording = recording_of(task)
    said = replay_vectors(vectors(recording))
    identical = None
    if task.as_text:
        identical = from_text(recording) == said
    return judge_outcome(
        recording.name,
        recording.label,
        said,
        hours=recording.hours,
        every=recording.job.exporters.every,
        longest=recording.hang_longest,
        identical=identical,
        earlier=recording.earlier,
    )


def from_text(recording: Recording) -> list[Verdict]:
    """What is said of it when it is read from a file."""
    text = "".join(f"{line}\n" for line in lines(recording))
    return replay_vectors(RecordingFile(io.BytesIO(text.encode())))


def checks_of(outcomes: list[Outcome], minutes: float) -> list[Check]:
    """What was promised."""
    found = figures(outcomes)
    checks = [
        Check("precision of (job, node, kind)", found.precision, "", ">= 0.97", found.precision >= 0.97),
        Check("recall of (job, node, kind)", found.recall, "", ">= 0.95", found.recall >= 0.95),
        Check("node top-1", found.node_top1, "", ">= 0.97", found.node_top1 >= 0.97),
        Check(
            f"evictions in {found.healthy_hours:.0f} fault-free hours",
            found.healthy_evictions,
            "",
            "0",
            found.healthy_evictions == 0,
        ),
    ]
    for name, (goal, unit) in GOALS.items():
        if name in found.delays:
            value = found.delays[name]
            checks.append(Check(f"median delay, {name}", value, unit, f"<= {goal:g}", value <= goal))
    tried = [outcome for outcome in outcomes if outcome.identical is not None]
    same = sum(bool(outcome.identical) for outcome in tried)
    checks.append(
        Check("recordings replayed as text with the same verdicts", same, "", f"{len(tried)}", same == len(tried))
    )
    checks.append(Check("duration", minutes, "min", f"<= {BUDGET_MINUTES:g}", minutes <= BUDGET_MINUTES))
    return checks


def write(tasks: list[Task], folder: Path) -> None:
    """Recordings as files, each with its label beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        recording = recording_of(task)
        (folder / f"{recording.name}.jsonl").write_text("\n".join(lines(recording)) + "\n", encoding="utf-8")
        label = asdict(recording.label) if recording.label is not None else None
        (folder / f"{recording.name}.label.json").write_text(json.dumps(label), encoding="utf-8")


def main() -> None:
    """Parse the arguments, run all recordings, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50, help="recordings of each fault")
    parser.add_argument("--first-seed", type=int, default=0, help="another number gives other recordings")
    parser.add_argument(
        "--hours", type=int, help=f"fault-free recordings of an hour; {HOURS_PER_SEED} a seed by default"
    )
    parser.add_argument("--fault", action="append", choices=[fault.name for fault in FAULTS], help="only this one")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write recordings and labels there, judge nothing")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    hours = HOURS_PER_SEED * options.seeds if options.hours is None else options.hours
    tasks = plan(options.seeds, hours, options.fault or [fault.name for fault in FAULTS], options.first_seed)
    if options.write:
        write(tasks, options.write)
        return
    started = time.monotonic()
    outcomes: list[Outcome] = []
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for outcome in pool.imap_unordered(run, tasks):
            outcomes.append(outcome)
            if len(outcomes) % 50 == 0:
                progress(f"{len(outcomes)} of {len(tasks)} recordings, {time.monotonic() - started:.0f} s")
    outcomes.sort(key=lambda outcome: outcome.name)
    minutes = (time.monotonic() - started) / 60
    summary = {"seeds": options.seeds, **asdict(figures(outcomes)), "byFault": by_fault(outcomes)}
    publish("eagle_eye.faults", summary, checks_of(outcomes, minutes), as_json=options.json)


if __name__ == "__main__":
    main()
