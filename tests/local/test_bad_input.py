"""Bad input: one clear message that names the thing and the way out, and nothing lost."""

from __future__ import annotations

from local_job import Job


def test_a_trainer_without_steps_is_legitimate(job: Job) -> None:
    job.command = ["python3", "-c", "import time; time.sleep(4)"]
    report = job.run()
    assert report["phase"] == "Succeeded"
    assert "ProgressUnknown" in {
        condition["type"] for condition in report["conditions"] if condition["status"] == "True"
    }


def test_a_trainer_that_exits_at_once(job: Job) -> None:
    job.command = ["python3", "-c", "pass"]
    report = job.run()
    assert report["phase"] == "Succeeded"
    assert report["restarts"] == 0


def test_a_trainer_that_always_fails_uses_up_its_budgets(job: Job) -> None:
    job.command = ["python3", "-c", "import sys; sys.exit('no such data set: /data/tokens')"]
    job.spec = {"recovery": {"settleSeconds": 0.2, "graceSeconds": 1, "budgets": {"ranks": 1, "pods": 0, "jobs": 0}}}
    assert job.finish(job.start()) == 1
    assert job.report["phase"] == "Failed"
    failed = next(condition for condition in job.report["conditions"] if condition["type"] == "Failed")
    assert failed["status"] == "True"
    assert "budget" in failed["message"].lower()
    assert "no such data set" in job.output


def test_a_trainer_that_ignores_sigterm_is_killed(job: Job) -> None:
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    job.command = ["python3", "-c", script]
    job.spec = {"recovery": {"settleSeconds": 0.2, "graceSeconds": 1, "startSeconds": 60}}
    assert job.finish(job.start("--timeout", "12"), 60) == 3


def test_missing_command(job: Job) -> None:
    job.command = ["no-such-program"]
    job.spec = {"recovery": {"settleSeconds": 0.2, "budgets": {"ranks": 0, "pods": 0, "jobs": 0}}}
    assert job.finish(job.start()) == 1
    assert "no-such-program" in job.output


def test_shared_memory_that_is_too_small(job: Job) -> None:
    job.spec = {"checkpoint": {"storage": "file://./checkpoints", "sharedMemory": "900Ti"}}
    assert job.finish(job.start()) == 2
    assert "sharedMemory" in job.output


def test_bad_manifest_names_line_and_field(job: Job) -> None:
    job.spec = {"workres": 3}
    assert job.finish(job.start()) == 2
    assert "workres" in job.output
    assert "workers" in job.output
