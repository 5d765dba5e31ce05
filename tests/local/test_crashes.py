"""`kill -9` of any one part at random moments: the job finishes, and what was committed or acknowledged stays."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from local_job import Job, ours, wait_for


def acknowledged_and_stored(job: Job) -> tuple[list[str], list[str]]:
    """Ids of the incidents that the memory service acknowledged, and of those of which it has the observation."""
    (acknowledged,) = (job.state_dir / "acknowledged-incidents").glob("*.json")
    with closing(sqlite3.connect(job.state_dir / "memory.db")) as database:
        stored = database.execute(
            "SELECT idempotency_key FROM jobs JOIN observations ON observations.space = jobs.space "
            "AND observations.seq BETWEEN jobs.first_seq AND jobs.last_seq WHERE idempotency_key IS NOT NULL"
        ).fetchall()
    return json.loads(acknowledged.read_text())["ids"], [key for (key,) in stored]


def verify_checkpoints(job: Job) -> None:
    """Every committed generation is whole; the message of the checker otherwise."""
    command = [str(Path(sys.executable).parent / "sternpost-checkpoint"), "verify"]
    result = subprocess.run(
        [*command, f"file://{job.state_dir}/checkpoints"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("part", ["operator", "memory", "launcher", "eagle-eye", "checkpoint"])
def test_kills_of_one_part_are_harmless(job: Job, undisturbed_hash: str, part: str) -> None:
    chance = random.Random(f"{part}-{time.time_ns()}")  # noqa: S311 -- the moments shall differ each time
    moments = f"after={chance.uniform(1, 8):.2f}", f"step={chance.randint(3, 50)}"
    report = job.run(*(word for moment in moments for word in ("--inject", f"crash:part={part},worker=1,{moment}")))
    story = f"{part} killed at {moments}\n{job.output}"
    assert [injection["kind"] for injection in report["injections"]] == ["crash", "crash"], story
    assert report["phase"] == "Succeeded", story
    assert report["finalHash"] == undisturbed_hash, story
    assert report["excludedNodes"] == [], story
    acknowledged, stored = acknowledged_and_stored(job)
    assert acknowledged, story
    assert set(acknowledged) <= set(stored), story
    assert len(stored) == len(set(stored)), story
    verify_checkpoints(job)


def test_a_second_run_ends_the_orphans_of_a_killed_one_and_resumes(job: Job, undisturbed_hash: str) -> None:
    # Orphans train on until they are found: slowly enough for something to be left to do.
    job.command += ["--step-seconds", "0.25"]
    first = job.start()
    wait_for(lambda: any(job.state_dir.glob("checkpoints/generations/*/manifest.json")))
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    orphans = {process.pid for process in ours(job.state_dir)}
    assert orphans, "nothing was left to find"
    report = job.run()
    assert report["finalHash"] == undisturbed_hash
    assert report["attempts"][-1]["resumedStep"] >= 5


def test_interrupt_stops_everything_and_the_next_run_resumes(job: Job, undisturbed_hash: str) -> None:
    first = job.start()
    wait_for(lambda: any(job.state_dir.glob("checkpoints/generations/*/manifest.json")))
    first.send_signal(signal.SIGINT)
    assert job.finish(first, 40) == 130
    assert not ours(job.state_dir)
    assert job.run()["finalHash"] == undisturbed_hash


def test_a_torn_checkpoint_is_refused_and_the_one_before_it_used(job: Job, undisturbed_hash: str) -> None:
    first = job.start()
    wait_for(lambda: len(list(job.state_dir.glob("checkpoints/generations/*/manifest.json"))) >= 2)
    first.send_signal(signal.SIGINT)
    assert job.finish(first, 40) == 130
    newest = max(job.state_dir.glob("checkpoints/generations/*/manifest.json")).parent
    shard = max(newest.glob("*.shard"), key=lambda path: path.stat().st_size)
    shard.write_bytes(shard.read_bytes()[:-100])
    report = job.run()
    assert report["finalHash"] == undisturbed_hash
    logs = "".join(path.read_text() for path in job.state_dir.glob("logs/*/sternpost-checkpoint.log"))
    assert shard.name in logs
