"""Killing nodes and finding orphans, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sternpost_operator.cluster.local.node_process import (
    cleanup,
    end_orphans,
    find_orphans,
    kill_node,
    node_names,
    node_processes,
    start_node,
)
from sternpost_operator.cluster.local.paths import LocalPaths, make_private_folder
from sternpost_operator.cluster.local.processes import identify, is_alive

Machine = Any
SLEEP = "exec sleep 600"

# Its environment forgotten, its session left, its parent gone: only its ancestry by way of the agent is known.
_HIDER = """
import os, sys, time
if os.fork() == 0:
    os.execve("/bin/sh", ["sh", "-c", "echo $$$$ > hidden; exec sleep 600"], {})
time.sleep(600)
"""


_SUPERVISOR = """
import os, pathlib, subprocess, sys, time
from sternpost_operator.cluster.local.paths import LocalPaths
from sternpost_operator.cluster.local.node_process import start_node
paths = LocalPaths(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
start_node(paths, "node-1"), start_node(paths, "node-2")
subprocess.Popen(["sleep", "600"], env=dict(os.environ) | paths.markers())
time.sleep(600)
"""


def test_killed_node_takes_everything_with_it(machine: Machine) -> None:
    folder = str(machine.paths.state_dir)
    agent = machine.start()
    other = machine.start("node-2")
    escaping = f"setsid sh -c 'echo $$$$ > escaped; {SLEEP}' & {SLEEP}"
    machine.create(
        "gpt-0", machine.shell("trainer", escaping, workingDir=folder), init=(machine.sidecar("side", SLEEP),)
    )
    machine.create("gpt-1", machine.container("trainer", "python3", "-c", _HIDER, workingDir=folder))
    machine.create("gpt-2", machine.shell("trainer", SLEEP), node="node-2")
    pids = [
        machine.wait_for(lambda f=f: Path(folder, f).exists() and Path(folder, f).read_text())
        for f in ("hidden", "escaped")
    ]
    machine.wait_for(lambda: machine.phase("gpt-2") == "Running")
    hidden = [identify(int(pid)) for pid in pids]
    assert all(hidden)
    assert set(hidden) <= set(node_processes(machine.paths, "node-1"))
    (machine.paths.node_memory("node-1") / "page").write_text("x")
    assert kill_node(machine.paths, "node-1") >= 6
    assert agent.wait(timeout=10) == -signal.SIGKILL
    assert not any(is_alive(identity) for identity in hidden if identity)
    assert not machine.paths.node_memory("node-1").exists()
    assert not machine.paths.node_scratch("node-1").exists()
    assert node_names(machine.paths) == ["node-1", "node-2"]
    assert other.poll() is None
    assert kill_node(machine.paths, "node-1") == 0


def test_killed_agent_leaves_orphans_that_a_new_node_ends(machine: Machine) -> None:
    agent = machine.start()
    machine.create("gpt-0", machine.shell("trainer", SLEEP))
    machine.wait_for(lambda: machine.phase("gpt-0") == "Running")
    agent.kill()
    agent.wait(timeout=10)
    [orphan] = node_processes(machine.paths, "node-1")
    machine.start()
    assert not is_alive(orphan)


def test_orphans_of_a_killed_supervisor_are_found_and_ended_gracefully(machine: Machine) -> None:
    """A supervisor in a process of its own starts two nodes and a service, and is killed."""
    supervisor = subprocess.Popen(
        [
            sys.executable,
            "-c",
            _SUPERVISOR,
            str(machine.paths.state_dir),
            str(machine.paths.memory_dir),
        ]
    )
    try:
        journal = machine.paths.state_dir / "journal"
        machine.wait_for(lambda: len(node_names(machine.paths)) == 2)
        script = f"trap 'echo flushed > {journal}; exit 0' TERM; echo up; while true; do sleep 0.05; done"
        machine.create("gpt-0", machine.shell("trainer", script))
        machine.wait_for(lambda: machine.log("gpt-0") == "up\n")
    finally:
        supervisor.kill()
        supervisor.wait(timeout=10)
    assert len(find_orphans(machine.paths)) >= 4
    assert end_orphans(machine.paths) >= 4
    assert journal.read_text() == "flushed\n"
    assert find_orphans(machine.paths) == []
    assert not machine.paths.memory_dir.exists()


def test_processes_of_another_state_folder_are_left_alone(machine: Machine, tmp_path: Path) -> None:
    machine.start()
    other = LocalPaths(tmp_path / "other", tmp_path / "other-memory")
    other.make()
    agent = start_node(other, "node-1")
    try:
        machine.wait_for(lambda: node_names(other))
        end_orphans(machine.paths, grace_seconds=0)
        assert agent.poll() is None
        assert len(find_orphans(other)) == 1
    finally:
        kill_node(other, "node-1")
        agent.wait(timeout=10)
    cleanup(other)
    assert not other.memory_dir.exists()


def test_caller_and_its_ancestors_are_never_orphans(machine: Machine) -> None:
    script = (
        "import pathlib, sys\n"
        "from sternpost_operator.cluster.local.paths import LocalPaths\n"
        "from sternpost_operator.cluster.local.node_process import end_orphans\n"
        "print(end_orphans(LocalPaths(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(machine.paths.state_dir), str(machine.paths.memory_dir)],
        env=dict(os.environ) | machine.paths.markers("node-1"),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stdout == "0\n"


def test_record_of_another_boot_names_no_process(machine: Machine) -> None:
    own = identify(os.getpid())
    assert own is not None
    bystander = subprocess.Popen(["/bin/sleep", "600"], start_new_session=True)
    try:
        record = {"name": "node-1", "pid": own.pid, "startedAt": 1.0, "heartbeatAt": 1.0, "processGroup": bystander.pid}
        machine.store.put("nodes", "node-1", record | {"processStartTime": 0, "bootId": "another"})
        assert node_processes(machine.paths, "node-1") == []
    finally:
        bystander.kill()
        bystander.wait()


def test_memory_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "memory").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="not a folder of this user"):
        make_private_folder(tmp_path / "memory")


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "a b", "-a", "a\n", "a..b"])
def test_bad_node_names_are_refused(machine: Machine, name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        start_node(machine.paths, name)


@pytest.mark.parametrize("folder", ["/tmp/a'b", "/tmp/$(x)", "/tmp/a\nb", "/tmp/a%20"])  # noqa: S108
def test_state_folders_that_cannot_stand_in_commands_are_refused(folder: str) -> None:
    with pytest.raises(ValueError, match="choose a folder"):
        LocalPaths(Path(folder))
