"""A Pod for the launcher: folders, environment, an operator that writes attempt.json, and a look at what is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sternpost_launcher.processes import has_environment, list_processes
from sternpost_launcher.rank_environment import ATTEMPT_VARIABLE


def until(look: Callable[[], Any], what: str, seconds: float = 15) -> Any:
    """The first true value of `look`, which is asked again and again."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.01)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def attempt_id(number: int) -> str:
    return f"{number}-0abc{number:04d}"


def member(pod: str, uid: str, port: int = 9470, **more: object) -> dict[str, Any]:
    return {"pod": pod, "uid": uid, "node": "n", "address": "127.0.0.1", "eagleEyePort": port, **more}


class FakePod:
    """One Pod with its control folder. The launcher runs as a real process."""

    def __init__(self, folder: Path, launcher: Path, python: str) -> None:
        self.control = folder / "control"
        self.shm = folder / "shm"
        self.scratch = folder / "scratch"
        for path in (self.control, self.shm, self.scratch):
            path.mkdir()
        self.launcher = launcher
        self.python = python
        self.port = free_port()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.environment = {
            "PATH": os.environ["PATH"],
            "STERNPOST_JOB": "gpt",
            "STERNPOST_JOB_UID": "job-uid",
            "STERNPOST_POD": "gpt-0",
            "STERNPOST_POD_UID": "pod-uid",
            "STERNPOST_CONTROL_DIR": str(self.control),
            "STERNPOST_SHM_DIR": str(self.shm),
            "STERNPOST_PORT_METRICS_0": "9400",
            "CUDA_VISIBLE_DEVICES": "",
        }

    def start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start the launcher, with its output in files of the scratch folder."""
        with (self.scratch / "out").open("ab") as out, (self.scratch / "err").open("ab") as err:
            process = subprocess.Popen(
                [self.python, str(self.launcher), "--", *command],
                env={**self.environment, **environment},
                cwd=self.scratch,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        self.processes.append(process)
        return process

    def start_python(self, script: str, **environment: str) -> subprocess.Popen[bytes]:
        return self.start(sys.executable, "-S", "-c", script, **environment)

    def order(self, number: int, action: str = "run", *, ranks: int = 1, **spec: object) -> str:
        """Write attempt.json as eagle-eye does; returns the attempt's id."""
        run = action == "run"
        value = {
            "apiVersion": "sternpost.dev/v1alpha1",
            "kind": "Attempt",
            "metadata": {"name": "gpt"},
            "spec": {
                "job": "gpt",
                "jobUid": "job-uid",
                "number": number,
                "id": attempt_id(number),
                "action": action,
                "ranksPerWorker": ranks,
                "worldSize": ranks if run else 0,
                "workers": [member("gpt-0", "pod-uid", index=0)] if run else [],
                "spares": [],
                "masterAddress": "127.0.0.1" if run else "",
                "masterPort": self.port if run else 0,
                "complete": run,
                "graceSeconds": 5,
                "issuedAt": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
                **spec,
            },
        }
        self.write(json.dumps(value).encode())
        return attempt_id(number)

    def write(self, content: bytes) -> None:
        temporary = self.control / ".attempt.tmp"
        temporary.write_bytes(content)
        temporary.replace(self.control / "attempt.json")

    def status(self) -> dict[str, Any]:
        try:
            return json.loads((self.control / "launcher.json").read_bytes())
        except FileNotFoundError:
            return {"state": None, "attemptNumber": None}

    def reaches(self, state: str, number: int | None = None, seconds: float = 15) -> dict[str, Any]:
        """The status once it says so."""

        def look() -> dict[str, Any] | None:
            code = self.processes[-1].poll()
            status = self.status()
            if status["state"] == state and status["attemptNumber"] == number:
                return status
            if code is not None:
                raise AssertionError(f"the launcher ended with code {code} before it reached {state}")
            return None

        try:
            return until(look, f"state {state}, attempt {number}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\nstatus {self.status()}\n{self.err()}") from None

    def out(self) -> str:
        return (self.scratch / "out").read_text(errors="replace")

    def err(self) -> str:
        return (self.scratch / "err").read_text(errors="replace")

    def file(self, name: str) -> str:
        """A file that a rank has written to the scratch folder."""
        until((self.scratch / name).exists, f"file {name}")
        return until((self.scratch / name).read_text, f"content of {name}")

    def left(self) -> list[int]:
        """The pids of this Pod's ranks and their descendants, however they hide."""
        identity = {"STERNPOST_CONTROL_DIR": str(self.control)}
        return [
            process.pid
            for process in list_processes()
            if not process.dead and has_environment(process.pid, ATTEMPT_VARIABLE, identity)
        ]

    def clear(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(10)
        for pid in self.left():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def python() -> str:
    """The oldest interpreter that is supported, if there is one here."""
    candidates = [shutil.which("python3.9"), *map(str, Path.home().glob(".pyenv/versions/3.9.*/bin/python"))]
    return next((found for found in candidates if found and _works(found)), sys.executable)


def _works(python: str) -> bool:
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0  # no version shim


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("launcher") / "launcher.pyz"
    subprocess.run([sys.executable, "-m", "sternpost_launcher", "install", str(path)], check=True, capture_output=True)
    return path


@pytest.fixture
def pod(tmp_path: Path, launcher: Path, python: str) -> Iterator[FakePod]:
    fake = FakePod(tmp_path, launcher, python)
    yield fake
    fake.clear()


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., Any]:
    return until


@pytest.fixture(name="member")
def member_fixture() -> Callable[..., dict[str, Any]]:
    return member
