"""Replicas of `sternpost operator` as processes of this machine."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from harness.processes import Started, spawn
from kube import parse_metrics

T = TypeVar("T")

NAMESPACE = "sternpost-system"


@dataclass
class Replica:
    """One process."""

    identity: str
    process: Started
    log: Path

    def lines(self) -> list[dict[str, object]]:
        """What it logged so far; a line that is no JSON fails the test."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.strip()]

    @property
    def port(self) -> int:
        """Of its pages."""
        started = next((line for line in self.lines() if line["event"] == "operator starts"), None)
        assert started is not None, self.log.read_text()
        return int(str(started["port"]))

    def page(self, path: str) -> str:
        """One of its pages."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def metrics(self) -> dict[str, float]:
        """Its samples."""
        return parse_metrics(self.page("metrics"))

    @property
    def leads(self) -> bool:
        """Whether it has begun to lead."""
        return any(line["event"] == "leads" for line in self.lines())

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.signal(number)


class Replicas:
    """They share a kubeconfig; whatever still runs at the end is killed."""

    def __init__(self, kubeconfig: Path, folder: Path, **environment: str) -> None:
        self._kubeconfig = kubeconfig
        self._folder = folder
        self._environment = environment
        self._count = 0
        self.all: list[Replica] = []

    def start(self) -> Replica:
        """One more."""
        self._count += 1
        identity = f"replica-{self._count}"
        log = self._folder / f"{identity}.log"
        command: list[str | Path] = [
            *(sys.executable, "-P", "-c", "from sternpost_operator.cli import main; main()", "operator"),
            *("--namespace", NAMESPACE, "--identity", identity, "--metrics-port", "0", "--host", "127.0.0.1"),
        ]
        environment = {"KUBECONFIG": str(self._kubeconfig), **self._environment}
        for name in ("PYTHONPATH", "COVERAGE_PROCESS_START"):
            if name in os.environ:
                environment[name] = os.environ[name]
        made = Replica(identity, spawn(command, log=log, mark=self._folder, environment=environment), log)
        self.all.append(made)
        return made

    def leader(self, seconds: float = 90) -> Replica:
        """The one that leads, once one does."""
        found = eventually(
            lambda: next((each for each in self.all if each.process.alive and each.log.exists() and each.leads), None),
            "a leader",
            seconds,
        )
        assert found is not None
        return found

    def close(self) -> None:
        for each in self.all:
            each.process.kill()


def eventually(look: Callable[[], T], what: str, seconds: float = 60) -> T:
    """The first true answer; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.05)
    return found


def exit_code(replica: Replica) -> int | None:
    """Of a child of this process that has ended."""
    pid, status = os.waitpid(replica.process.pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if pid else None


_SERIES = re.compile(r"^(\w+)(\{.*\})?$")


def total(samples: dict[str, float], name: str, *having: str) -> float:
    """The sum of a metric's samples whose labels contain all of `having`."""
    return sum(
        value
        for key, value in samples.items()
        if (match := _SERIES.match(key)) and match[1] == name and all(part in (match[2] or "") for part in having)
    )
