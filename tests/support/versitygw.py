"""A real S3 server on loopback: versitygw on a folder, built from source once and ended by its pid."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

MODULE = Path(__file__).resolve().parents[1] / "services" / "checkpoint" / "binaries" / "versitygw"
PACKAGE = "github.com/versity/versitygw/cmd/versitygw"
BUILD_SECONDS = 1800
START_SECONDS = 30.0
ACCESS_KEY = "sternpost-test"
SECRET_KEY = "never-in-a-log-9d1f"
BUCKET = "checkpoints"


def cache() -> Path:
    """Programs that were built, outside the checkout: a clean clone finds them, too."""
    if chosen := os.environ.get("STERNPOST_SERVICES_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sternpost" / "services"


def program() -> Path:
    """The server's program; built with Go when the cache lacks it, which takes two minutes or so.

    Raises RuntimeError without Go.
    """
    digest = hashlib.sha256(b"".join((MODULE / name).read_bytes() for name in ("go.mod", "go.sum")))
    file = cache() / "bin" / f"versitygw-{digest.hexdigest()[:16]}" / "versitygw"
    if file.exists():
        return file
    go = shutil.which("go")
    if go is None:
        raise RuntimeError(
            "versitygw, the S3 server of these tests, has to be built, and there is no Go: install Go 1.25 or newer"
            " (https://go.dev/dl), or run the other tests with `pytest tests/services --ignore tests/services/checkpoint`"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        # Built beside its place and moved there: a build that is broken off leaves no half program.
        made = Path(folder) / "versitygw"
        built = subprocess.run(
            [go, "build", "-trimpath", "-ldflags", "-s -w", "-o", str(made), PACKAGE],
            cwd=MODULE,
            env={**os.environ, "CGO_ENABLED": "0"},
            timeout=BUILD_SECONDS,
            capture_output=True,
            text=True,
            check=False,
        )
        if built.returncode != 0:
            raise RuntimeError(f"versitygw cannot be built:\n{built.stderr[-4000:]}")
        made.replace(file)
    return file


class S3Server:
    """versitygw with one bucket. `options` are arguments of its `posix` command."""

    def __init__(self) -> None:
        self._program = program()
        self.folder = Path(tempfile.mkdtemp(prefix="sternpost-s3-"))
        self.log = self.folder / "log"
        self.port = _free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def bucket(self) -> Path:
        """The bucket's objects, as files."""
        return self.folder / "data" / BUCKET

    def start(self) -> None:
        """Start it on the data that is there; it answers when this returns."""
        for name in (f"data/{BUCKET}", "meta"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(str(self._program), "--port", f"127.0.0.1:{self.port}", "--keep-alive", "posix"),
                    # Not every file system has extended attributes.
                    *("--sidecar", str(self.folder / "meta"), str(self.folder / "data")),
                ],
                env={**os.environ, "ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY},
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)

    def answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status in {200, 403}
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
