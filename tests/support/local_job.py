"""A job for `sternpost run`, and what to look for after it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

JOBS = Path(__file__).parents[1] / "local" / "jobs"
SETTINGS = {
    "recovery": {"settleSeconds": 0.5, "nodeLostSeconds": 2, "graceSeconds": 3, "startSeconds": 60},
    "eagleEye": {
        "intervalSeconds": 0.5,
        # Longer than a busy machine may stand still; the test of a hang has less patience.
        "hang": {"factor": 5, "minSeconds": 15, "initSeconds": 60},
    },
}


def ours(state_dir: Path) -> list[psutil.Process]:
    """Every process that works for a run in this state folder."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            command = process.cmdline()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        marked = "STERNPOST_LOCAL_STATE" in environment and any(
            str(state_dir) in value for value in environment.values()
        )
        if process.pid != os.getpid() and (marked or any(str(state_dir) in part for part in command)):
            found.append(process)
    return found


def memory_folders() -> set[Path]:
    """What runs have in shared memory now."""
    return set(Path("/dev/shm").glob("sternpost-*"))  # noqa: S108 -- the place under test


@dataclass
class Job:
    """A manifest in a folder of its own, and how to run it."""

    folder: Path
    name: str = "tiny"
    command: list[str] = field(default_factory=lambda: ["python3", str(JOBS / "tiny.py")])
    spec: dict[str, Any] = field(default_factory=dict)

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    def write(self) -> Path:
        manifest = {
            "apiVersion": "sternpost.dev/v1alpha1",
            "kind": "TrainingJob",
            "metadata": {"name": self.name},
            "spec": {
                "workers": 2,
                **SETTINGS,
                "checkpoint": {"storage": "file://./checkpoints", "sharedMemory": "64Mi"},
                "template": {"spec": {"containers": [{"name": "trainer", "image": "none", "command": self.command}]}},
                **self.spec,
            },
        }
        path = self.folder / "job.yaml"
        path.write_text(yaml.safe_dump(manifest))
        return path

    def start(self, *arguments: str, nodes: int = 2) -> subprocess.Popen[str]:
        """`sternpost run` in the background; its output goes to `output.txt`."""
        with (self.folder / "output.txt").open("a") as output:
            return subprocess.Popen(
                [
                    *(str(Path(sys.executable).parent / "sternpost"), "run", str(self.write()), "--plain"),
                    *("--nodes", str(nodes), "--state-dir", str(self.state_dir)),
                    *("--report", str(self.folder / "report.json"), "--timeout", "100", *arguments),
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def finish(self, process: subprocess.Popen[str], timeout: float = 110) -> int:
        """Wait for the end; a run that does not end is interrupted, and that fails the test."""
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            raise

    def run(self, *arguments: str, nodes: int = 2) -> dict[str, Any]:
        """Run to the end, which must be a success; returns the report."""
        code = self.finish(self.start(*arguments, nodes=nodes))
        assert code == 0, self.output
        return self.report

    @property
    def report(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads((self.folder / "report.json").read_text())
        return result

    @property
    def output(self) -> str:
        return (self.folder / "output.txt").read_text()


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Poll until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)
