"""The checks one by one; the launcher's tests run them together."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from sternpost_launcher import checks_gpu, checks_machine
from sternpost_launcher.checks_gpu import check_gpu
from sternpost_launcher.checks_machine import (
    check_clock,
    check_command,
    check_disk,
    check_memory,
    check_shared_memory,
    disk_folders,
)
from sternpost_launcher.checks_network import check_peer, check_rendezvous
from sternpost_launcher.children import Children
from sternpost_launcher.preflight import describe_failure
from sternpost_launcher.verdict import MIB


def test_command(tmp_path):
    plain = tmp_path / "train.py"
    plain.write_text("")
    path = {"PATH": os.environ["PATH"]}
    assert check_command(["sh", "-c", "true"], path).ok
    assert check_command([sys.executable], {}).ok
    assert "is not executable" in check_command([str(plain)], path).detail
    assert "does not exist" in check_command([str(tmp_path / "x")], path).detail
    assert "torchrun-x is not in PATH" in check_command(["torchrun-x"], path).detail


def test_clock():
    assert check_clock(1000.0, 990.0).ok
    assert check_clock(1000.0, 1060.0).ok
    verdict = check_clock(1000.0, 1061.0)
    assert not verdict.ok
    assert "61 s behind" in verdict.detail


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 1 GiB available and no cgroups."""
    monkeypatch.setattr(checks_machine, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(checks_machine, "OWN_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(checks_machine, "CGROUP", tmp_path / "fs")
    (tmp_path / "meminfo").write_text("MemTotal: 2097152 kB\nMemAvailable: 1048576 kB\n")
    return tmp_path


def group(folder, limit, usage, stat, names=("memory.max", "memory.current")):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip((*names, "memory.stat"), (limit, usage, stat), strict=True):
        (folder / name).write_text(f"{content}\n")


def test_memory_of_the_machine(machine):
    assert check_memory().detail == "1024 MiB available"
    (machine / "meminfo").write_text("MemAvailable: 1024 kB\n")
    verdict = check_memory()
    assert not verdict.ok
    assert "free memory on the node" in verdict.detail
    (machine / "meminfo").write_text("garbage")
    assert check_memory().ok


def test_memory_of_cgroup_v2(machine):
    (machine / "cgroup").write_text("0::/\n")
    group(machine / "fs", 512 * MIB, 500 * MIB, f"anon 1\ninactive_file {100 * MIB}")
    assert check_memory().detail == "112 MiB available"
    group(machine / "fs", 512 * MIB, 500 * MIB, "inactive_file 0")
    verdict = check_memory()
    assert not verdict.ok
    assert "raise the trainer's memory limit" in verdict.detail
    group(machine / "fs", "max", 500 * MIB, "inactive_file 0")
    assert check_memory().detail == "1024 MiB available"


def test_memory_counts_the_narrowest_cgroup_above(machine):
    (machine / "cgroup").write_text("0::/kubepods/pod\n")
    group(machine / "fs/kubepods", 300 * MIB, 0, "inactive_file 0")
    group(machine / "fs/kubepods/pod", 400 * MIB, 0, "inactive_file 0")
    assert check_memory().detail == "300 MiB available"


def test_memory_of_cgroup_v1(machine):
    (machine / "cgroup").write_text("4:cpu,memory:/docker/of-the-host\n0::/\n")
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    group(machine / "fs/memory", 256 * MIB, 56 * MIB, "total_inactive_file 0", names)
    assert check_memory().detail == "200 MiB available"
    group(machine / "fs/memory", 9223372036854771712, 56 * MIB, "total_inactive_file 0", names)
    assert check_memory().detail == "1024 MiB available"


def test_disk(tmp_path, monkeypatch):
    assert check_disk([tmp_path, tmp_path]).ok
    assert "create it" in check_disk([tmp_path / "missing"]).detail
    monkeypatch.setattr(checks_machine, "MIN_DISK", 2**70)
    verdict = check_disk([tmp_path])
    assert not verdict.ok
    assert f"{tmp_path} has" in verdict.detail


def test_disk_folders(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert disk_folders(tmp_path, {"TMPDIR": str(tmp_path)}) == [tmp_path, tmp_path]
    monkeypatch.chdir(tmp_path)
    assert disk_folders(tmp_path, {"TMPDIR": str(gone)}) == [tmp_path, tmp_path]


def test_shared_memory(tmp_path, monkeypatch):
    verdict = check_shared_memory(tmp_path)
    assert verdict.ok
    assert "MiB free of" in verdict.detail
    assert list(tmp_path.iterdir()) == []
    assert "sharedMemory" in check_shared_memory(tmp_path / "missing").detail
    assert check_shared_memory(None).ok
    monkeypatch.setattr(checks_machine, "MIN_DEV_SHM", 2**70)
    assert "warning: /dev/shm has only" in check_shared_memory(None).detail


def test_rendezvous():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        verdict = check_rendezvous(port)
        assert not verdict.ok
        assert f"port {port} (MASTER_PORT) is taken" in verdict.detail
    assert check_rendezvous(port).ok


def test_peer():
    never = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert check_peer("localhost", "127.0.0.1", port, never).ok
    verdict = check_peer("localhost", "127.0.0.1", port, never, connect_seconds=0.3)
    assert not verdict.ok
    assert f"peer unreachable: 127.0.0.1:{port}" in verdict.detail
    verdict = check_peer("no-such-host.invalid", "127.0.0.1", port, never, resolve_seconds=0.3)
    assert not verdict.ok
    assert "no-such-host.invalid does not resolve" in verdict.detail


def test_peer_that_comes_late():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    late = socket.socket()
    late.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    def listen() -> None:
        late.bind(("127.0.0.1", port))
        late.listen()

    timer = threading.Timer(0.3, listen)
    timer.start()
    try:
        assert check_peer("localhost", "127.0.0.1", port, threading.Event()).ok
    finally:
        timer.join()
        late.close()


def test_cancelled_peer_check_ends_soon():
    cancelled = threading.Event()
    cancelled.set()
    begun = time.monotonic()
    assert not check_peer("localhost", "127.0.0.1", 1, cancelled).ok
    assert time.monotonic() - begun < 4


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """Installs an nvidia-smi made of shell lines, on a machine with one NVIDIA device."""
    monkeypatch.setattr(checks_gpu, "DEVICES", tmp_path)
    (tmp_path / "nvidia0").touch()
    (tmp_path / "nvidiactl").touch()

    def make(lines):
        path = tmp_path / "nvidia-smi"
        path.write_text(f"#!/bin/sh\n{lines}\n")
        path.chmod(0o755)
        return {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    return make


TWO = "echo 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)'; echo 'GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-2)'"


def test_gpu(smi):
    children = Children()
    assert check_gpu(children, smi(TWO), 2).detail == "2 GPUs for 2 ranks"
    verdict = check_gpu(children, smi(TWO), 3)
    assert not verdict.ok
    assert "2 GPUs for 3 ranks" in verdict.detail
    assert check_gpu(children, {**smi("exit 1"), "CUDA_VISIBLE_DEVICES": ""}, 1).ok
    mig = smi("echo 'GPU 0: NVIDIA A100 (UUID: GPU-1)'; for i in 0 1 2; do echo \"  MIG 1g.5gb Device $i: (x)\"; done")
    assert check_gpu(children, mig, 3).ok


def test_gpu_whose_driver_fails(smi):
    verdict = check_gpu(Children(), smi("echo 'Unable to determine the device handle: GPU is lost'; exit 15"), 1)
    assert not verdict.ok
    assert "exited with code 15" in verdict.detail
    assert "GPU is lost" in verdict.detail


def test_gpu_whose_driver_hangs(smi, monkeypatch):
    monkeypatch.setattr(checks_gpu, "TIMEOUT_SECONDS", 0.3)
    verdict = check_gpu(Children(), smi("exec sleep 600"), 1)
    assert not verdict.ok
    assert "did not end within" in verdict.detail


def test_no_gpu(smi, tmp_path):
    environment = smi("echo no devices; exit 9")
    (tmp_path / "nvidia0").unlink()
    assert check_gpu(Children(), environment, 1).detail == "no GPU"
    (tmp_path / "nvidia-smi").unlink()
    assert check_gpu(Children(), {"PATH": str(tmp_path)}, 1).detail == "no GPU"


def test_description_names_check_and_way_out():
    verdict = check_clock(0.0, 100.0)
    assert describe_failure([verdict]).startswith("preflight check clock failed: the clock is 100 s behind")


def test_children_tell_how_each_ended():
    children = Children()
    with Path(os.devnull).open("wb") as null:
        pids = [
            children.spawn(["sh", "-c", script], {"PATH": os.environ["PATH"]}, null.fileno(), null.fileno())
            for script in ("exit 7", f"kill -{int(signal.SIGKILL)} $$")
        ]
        with pytest.raises(FileNotFoundError):
            children.spawn(["no-such-command"], {}, null.fileno(), null.fileno())
    found = {}
    deadline = time.monotonic() + 20
    while len(found) < 2 and time.monotonic() < deadline:
        children.reap()
        for pid in pids:
            ended = children.take_exit(pid)
            if ended is not None:
                found[pid] = ended.code
        time.sleep(0.01)
    assert [found[pid] for pid in pids] == [7, -9]
    assert children.take_exit(pids[0]) is None
