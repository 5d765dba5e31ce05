"""`kill -9` of any one part at a random moment: the job finishes, and what was committed or acknowledged stays."""

from __future__ import annotations

import random
import signal
import time

import pytest
from local_job import Job, ours, wait_for


@pytest.mark.parametrize("part", ["operator", "memory", "launcher", "eagle-eye", "checkpoint"])
def test_kill_of_one_part_is_harmless(job: Job, undisturbed_hash: str, part: str) -> None:
    moment = random.Random(f"{part}-{time.time_ns()}").uniform(1, 8)  # noqa: S311 -- the moment shall differ each time
    report = job.run("--inject", f"crash:part={part},worker=1,after={moment:.2f}")
    assert report["injections"], f"{part} was not killed at {moment:.2f} s"
    assert report["phase"] == "Succeeded", f"killed at {moment:.2f} s\n{job.output}"
    assert report["finalHash"] == undisturbed_hash, f"killed at {moment:.2f} s"
    assert report["excludedNodes"] == []


def test_a_second_run_ends_the_orphans_of_a_killed_one_and_resumes(job: Job, undisturbed_hash: str) -> None:
    first = job.start()
    wait_for(lambda: "step" in job.output and any(job.state_dir.glob("checkpoints/generations/*/manifest.json")))
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
