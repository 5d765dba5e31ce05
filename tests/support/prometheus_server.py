"""Debian's Prometheus for a test: a port that the system chooses, its own folder, ended by its process id."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from panel_queries import Prometheus

_ADDRESS = re.compile(r'msg="Listening on".*\baddress=(?P<address>127\.0\.0\.1:\d+)')
START_SECONDS = 60
SCRAPE_SECONDS = 1


def program(name: str) -> str:
    """Path of `prometheus` or `promtool`; fails the test, with the way out, where it is missing."""
    found = shutil.which(name)
    assert found, f"{name} is not installed; on Debian: apt-get install prometheus, or `make test-services` as root"
    return found


Targets = Sequence[tuple[str, Mapping[str, str]]]
"""Addresses `host:port`, and the labels of the series found there."""


class Server:
    """A Prometheus that runs, and its list of targets."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.client = Prometheus(url)
        self._file = folder / "targets.json"

    def scrape(self, targets: Targets) -> None:
        """Scrape these from now on, instead of those before."""
        groups = [{"targets": [address], "labels": dict(labels)} for address, labels in targets]
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(groups))
        new.replace(self._file)


def configuration(folder: Path, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """As a ServiceMonitor with `honorLabels: true` has it: what a page says of its jobs stays."""
    return {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"},
        "scrape_configs": [
            {
                "job_name": "sternpost",
                "honor_labels": True,
                "file_sd_configs": [{"files": [str(folder / "targets.json")], "refresh_interval": "1s"}],
            }
        ],
        **(extra or {}),
    }


@contextmanager
def prometheus(folder: Path, extra: Mapping[str, Any] | None = None) -> Iterator[Server]:
    """Run one in `folder`; `extra` is added to its configuration (`rule_files`). Scrapes nothing until it is told."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "targets.json").write_text("[]")
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration(folder, extra)))
    log = folder / "prometheus.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:0",
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        server = Server(folder, _address(process, log))
        try:
            _wait_until_ready(server, process, log)
            yield server
        finally:
            server.client.close()
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        match = _ADDRESS.search(log.read_text())
        if match:
            return f"http://{match['address']}"
        assert process.poll() is None, f"prometheus ended at once:\n{log.read_text()}"
        time.sleep(0.05)
    raise AssertionError(f"prometheus does not listen after {START_SECONDS} s:\n{log.read_text()}")


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not server.client.ready():
        gone = process.poll() is not None or time.monotonic() > deadline
        assert not gone, f"prometheus is not ready:\n{log.read_text()}"
        time.sleep(0.05)
