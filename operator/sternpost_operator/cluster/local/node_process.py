"""Starting and ending nodes, and finding what an earlier run left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

import structlog

from sternpost_operator.cluster.local.json_files import GarbageError
from sternpost_operator.cluster.local.node_record import NodeRecord, read_node
from sternpost_operator.cluster.local.paths import NODE_VARIABLE, STATE_VARIABLE, LocalPaths, check_name
from sternpost_operator.cluster.local.ports import PortPool
from sternpost_operator.cluster.local.processes import (
    ProcessIdentity,
    ProcessRecord,
    boot_id,
    end_all,
    find,
    identify,
    in_any,
    is_alive,
    marked,
    read_process,
    send_signal,
)

_logger = structlog.get_logger(__name__)

_AGENT = "sternpost_operator.cluster.local.node_agent"
_LOG_LIMIT_BYTES = 16 * 1024 * 1024


def start_node(
    paths: LocalPaths,
    name: str,
    *,
    environment: Mapping[str, str] | None = None,
    supervisor_pid: int | None = None,
    orphan_seconds: float | None = None,
) -> subprocess.Popen[bytes]:
    """Start a node with empty memory and scratch; whatever an earlier one of this name left is ended first.

    `environment` is what its containers inherit (this process's by default), `supervisor_pid` the process whose end the
    node outlives by `orphan_seconds` only (this process by default). Raises `OSError`, `ValueError` for a bad name.
    """
    check_name(name)
    kill_node(paths, name)
    paths.make()
    supervisor = identify(os.getpid() if supervisor_pid is None else supervisor_pid)
    if supervisor is None:
        raise ProcessLookupError(f"process {supervisor_pid}, which is to supervise node {name}, does not run")
    # -P: what lies in the state folder is no module.
    command = [sys.executable, "-P", "-m", _AGENT, "--node", name]
    command += ["--state-dir", str(paths.state_dir), "--memory-dir", str(paths.memory_dir)]
    command += ["--supervisor-pid", str(supervisor.pid), "--supervisor-start-time", str(supervisor.start_time)]
    if orphan_seconds is not None:
        command += ["--orphan-seconds", str(orphan_seconds)]
    log_file = paths.node_log(name)
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if log_file.stat().st_size > _LOG_LIMIT_BYTES:
            log_file.replace(log_file.with_name(log_file.name + ".1"))
    with log_file.open("ab") as output:
        return subprocess.Popen(
            command,
            env=dict(os.environ if environment is None else environment) | paths.markers(name),
            cwd=paths.state_dir,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stop_node(paths: LocalPaths, name: str) -> bool:
    """Ask a node to end its Pods within their grace, to remove its folders and to exit; False if it does not run."""
    record = _read(paths, name)
    return record is not None and record.boot == boot_id() and send_signal(record.agent, signal.SIGTERM)


def kill_node(paths: LocalPaths, name: str) -> int:
    """Kill everything of a node at once, and remove its memory and scratch with it; the number of processes killed.

    Its record stays: it is a node that does not answer any more. Raises `TimeoutError` if something cannot be killed.
    """
    killed = end_all(_of_node(paths, name))
    for folder in (paths.node_memory(name), paths.node_scratch(name)):
        shutil.rmtree(folder, ignore_errors=True)
    PortPool(paths.ports).release(f"{name}/")
    if killed:
        _logger.info("node killed", node=name, processes=killed)
    return killed


def node_processes(paths: LocalPaths, name: str) -> list[ProcessIdentity]:
    """Everything that runs on a node, its agent included."""
    return find(_of_node(paths, name))


def node_names(paths: LocalPaths) -> list[str]:
    """All nodes that ever were."""
    try:
        files = list((paths.objects / "nodes").iterdir())
    except FileNotFoundError:
        return []
    names = []
    for file in files:
        if file.suffix == ".json" and not file.name.startswith("."):
            with contextlib.suppress(ValueError):
                names.append(check_name(file.stem))
    return sorted(names)


def find_orphans(paths: LocalPaths) -> list[ProcessIdentity]:
    """Processes of this state folder's nodes and services; never the caller nor anything above it."""
    return find(_of_state(paths))


def end_orphans(paths: LocalPaths, *, grace_seconds: float = 10) -> int:
    """End what an earlier run left: nodes and services are asked to, and after the grace all is killed.

    Returns how many processes there were. The nodes' memory and scratch folders and their ports are freed, too.
    Raises `TimeoutError` if something cannot be killed.
    """
    found = find_orphans(paths)
    if found:
        _logger.warning("ending processes that an earlier run left", processes=len(found))
        pids = {identity.pid for identity in found}
        for identity in found:
            record = read_process(identity.pid)
            # The others are ended by their parents, which know the order.
            if record is not None and record.parent not in pids:
                send_signal(identity, signal.SIGTERM)
        deadline = time.monotonic() + grace_seconds
        while time.monotonic() < deadline and any(is_alive(identity) for identity in found):
            time.sleep(0.02)
        end_all(_of_state(paths))
    for folder in (paths.memory_dir, paths.state_dir / "scratch"):
        shutil.rmtree(folder, ignore_errors=True)
    PortPool(paths.ports).release("")
    return len(found)


def cleanup(paths: LocalPaths) -> None:
    """Remove the memory folder. For the end, when no node runs."""
    shutil.rmtree(paths.memory_dir, ignore_errors=True)


def _read(paths: LocalPaths, name: str) -> NodeRecord | None:
    try:
        return read_node(paths, name)
    except GarbageError as error:
        _logger.warning("node record not readable", node=name, error=str(error))
        return None


def _of_node(paths: LocalPaths, name: str) -> Callable[[ProcessRecord], bool]:
    tests = [marked(NODE_VARIABLE, paths.markers(name)[NODE_VARIABLE])]
    record = _read(paths, name)
    if record is not None and record.boot == boot_id():
        tests.append(record.owns)
    return in_any(tests)


def _of_state(paths: LocalPaths) -> Callable[[ProcessRecord], bool]:
    tests = [marked(STATE_VARIABLE, paths.state_id)]
    for name in node_names(paths):
        record = _read(paths, name)
        if record is not None and record.boot == boot_id():
            tests.append(record.owns)
    return in_any(tests)
