"""`sternpost-memory serve` as a process of its own, on a port of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

START_SECONDS = 60.0


class MemoryServer:
    def __init__(
        self, store: str, folder: Path, *options: str, environment: Mapping[str, str] | None = None, wait: bool = True
    ) -> None:
        self.store = store
        self.folder = folder
        self.options = options
        self.environment = environment or {}
        self.start(wait=wait)

    def start(self, *, wait: bool = True) -> None:
        """Start it at another port; it answers when this returns, with `wait` also that it is ready."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = self.folder / f"log-{self.port}"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-P", "-m", "sternpost_memory", "serve", "--store", self.store,
                    "--port", str(self.port), *self.options,
                ],
                stderr=log,
                env={**os.environ, **self.environment},
            )  # fmt: skip
        self.url = f"http://127.0.0.1:{self.port}"
        page = "/readyz" if wait else "/healthz"
        deadline = time.monotonic() + START_SECONDS
        while self.status(page) != 200:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.03)

    def status(self, page: str) -> int:
        try:
            return httpx.get(self.url + page, verify=False).status_code  # noqa: S501 - plain HTTP; it saves reading the certificates
        except httpx.TransportError:
            return 0

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
