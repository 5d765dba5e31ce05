"""The machine and processes, for real."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from sternpost_eagle_eye.collect.machine import MachineCollector, ProcessCollector
from sternpost_eagle_eye.vector import LauncherVector, RankProcess


def test_the_machine(tmp_path):
    collector = MachineCollector(tmp_path)
    first, second = collector.collect(), collector.collect()
    assert first.cpu_busy is None
    assert second.memory_total > second.memory_available > 0
    assert second.shared_memory_total >= second.shared_memory_free
    assert MachineCollector(tmp_path / "missing").collect().shared_memory_total is None


@pytest.fixture
def child():
    # A rank behind a shell, as `sh -c` in a manifest makes it.
    process = subprocess.Popen(
        ["/bin/sh", "-c", f"{sys.executable} -c 'print(1, flush=True); import time; time.sleep(60)'; true"],
        env={"STERNPOST_POD_UID": "uid-0", "STERNPOST_ATTEMPT": "1-a", "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    process.stdout.read(1)
    yield process
    with contextlib.suppress(ProcessLookupError):  # the test may have ended the whole group
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def launcher(pid, state="running"):
    return LauncherVector(
        attempt="1-a", state=state, updated_at=1.0, ranks=(RankProcess(rank=4, local_rank=0, pid=pid),)
    )


def test_a_stopped_descendant_is_seen(child):
    collector = ProcessCollector("uid-0")
    found = collector.collect(launcher(child.pid))[4]
    assert (found.alive, found.stopped) == (True, False)
    os.killpg(child.pid, signal.SIGSTOP)
    deadline = time.monotonic() + 5
    while not collector.collect(launcher(child.pid))[4].stopped:
        assert time.monotonic() < deadline
    os.killpg(child.pid, signal.SIGCONT)


def test_processes_of_others_are_not_described(child):
    assert ProcessCollector("another-pod").collect(launcher(child.pid)) == {}
    assert ProcessCollector("uid-0").collect(launcher(os.getpid())) == {}
    assert ProcessCollector("uid-0").collect(launcher(child.pid, "failed")) == {}
    assert ProcessCollector("uid-0").collect(None) == {}


def test_a_process_that_is_gone(child):
    collector = ProcessCollector("uid-0")
    collector.collect(launcher(child.pid))
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert not collector.collect(launcher(child.pid))[4].alive
