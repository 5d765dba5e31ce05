"""Whole jobs on this machine, and a look at what they leave behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from local_job import Job, memory_folders, ours


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    """A tiny job; afterwards no process and nothing in shared memory may be left of it."""
    before = memory_folders()
    result = Job(tmp_path)
    yield result
    left = ours(result.state_dir)
    for process in left:
        process.kill()
    assert not left, f"left behind: {[process.pid for process in left]}\n{result.output}"
    assert memory_folders() <= before, "left behind in /dev/shm"


@pytest.fixture(scope="session")
def undisturbed_hash(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights of the tiny job when nothing happens to it."""
    report = Job(tmp_path_factory.mktemp("undisturbed")).run()
    assert report["restarts"] == 0
    final_hash: str = report["finalHash"]
    assert final_hash
    return final_hash
