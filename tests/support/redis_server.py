"""A real redis-server of this test alone: on a Unix socket in a folder of its own, ended by its pid."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import redis

START_SECONDS = 30.0


class RedisServer:
    """Debian's redis-server, durable as the documentation asks for. `options` are lines of its configuration."""

    def __init__(self, *options: str) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise RuntimeError(
                "redis-server is not on the PATH: `make test-services` installs it as root, or install it yourself"
            )
        # Not pytest's folder: the path of a socket has at most 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="sternpost-redis-"))
        self.socket = self.folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self.log = self.folder / "log"
        self._program = program
        (self.folder / "redis.conf").write_text(
            "\n".join(
                [
                    "port 0",
                    f"unixsocket {self.socket}",
                    f"dir {self.folder}",
                    'save ""',
                    "appendonly yes",
                    "appendfsync always",
                    "daemonize no",
                    *options,
                ]
            )
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it on the data that is there; it answers when this returns."""
        self.socket.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([self._program, str(self.folder / "redis.conf")], stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)

    def answers(self) -> bool:
        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            try:
                return bool(client.ping())
            except redis.exceptions.AuthenticationError:
                return True
            except (redis.exceptions.RedisError, OSError):
                return False

    def kill(self) -> None:
        """SIGKILL: it has no time for anything."""
        self._signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)
