"""A Python that has imported what takes long to import, and forks: a process of it starts in milliseconds.

Each is a process of its own all the same (own pid, environment, output, atexit; it can be killed), and starts like
`python -c CODE ARGUMENTS…`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

REQUEST_BYTES = 1 << 17
NUMBER = struct.Struct("<i")


class ForkedPython:
    """What a test needs of `subprocess.Popen`."""

    def __init__(self, arguments: Sequence[str], output: int, status: int) -> None:
        self.args = list(arguments)
        self.stdout = open(output, "rb")  # noqa: SIM115 # closed by communicate
        self.returncode: int | None = None
        self._status = open(status, "rb", buffering=0)  # noqa: SIM115 # closed with the return code
        self.pid = self._number()

    def wait(self, timeout: float | None = None) -> int:
        """As long as `timeout` seconds; then it is killed, and TimeoutExpired raised."""
        with self._killed_after(timeout):
            if self.returncode is None:
                self._ended(self._number())
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[bytes, None]:
        """Its output to the end, in as long as `timeout` seconds; then it is killed, and TimeoutExpired raised."""
        with self._killed_after(timeout):
            output = b"" if self.stdout.closed else self.stdout.read()
            self.stdout.close()
            self.wait()
        return output, None

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self._ended(self._number())
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:  # otherwise the pid may be another's by now
            with contextlib.suppress(ProcessLookupError):  # its status is on its way
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    @contextlib.contextmanager
    def _killed_after(self, timeout: float | None) -> Iterator[None]:
        if timeout is None:
            yield
            return
        late = threading.Event()

        def kill() -> None:
            late.set()
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

        watch = threading.Timer(timeout, kill)
        watch.start()
        try:
            yield
        finally:
            watch.cancel()
        if late.is_set():
            raise subprocess.TimeoutExpired(self.args, timeout)

    def _number(self) -> int:
        read = self._status.read(NUMBER.size)
        if not read:
            raise RuntimeError("the Python template has ended; why is on stderr")
        number: int = NUMBER.unpack(read)[0]
        return number

    def _ended(self, code: int) -> None:
        self._status.close()
        self.returncode = code


class PythonTemplate:
    """Forks on request; ends with the process that made it."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), *modules],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def start(self, code: str, *arguments: str, environment: Mapping[str, str]) -> ForkedPython:
        """Start a process. Raises RuntimeError when the template has ended, as when a module cannot be imported."""
        request = json.dumps({"code": code, "arguments": arguments, "environment": dict(environment)}).encode()
        if len(request) > REQUEST_BYTES:
            raise ValueError(f"a request of {len(request)} bytes; at most {REQUEST_BYTES} can be sent")
        output, output_end = os.pipe()
        status, status_end = os.pipe()
        try:
            socket.send_fds(self._control, [request], [output_end, status_end])
        finally:
            os.close(output_end)
            os.close(status_end)
        return ForkedPython([sys.executable, "-c", code, *arguments], output, status)

    def close(self) -> None:
        self._control.close()
        self._process.wait()


def serve(control: socket.socket) -> str | None:
    """Fork for each request; returns in each forked process with the code that it is to run, and None when nobody asks
    any more."""
    statuses: dict[int, int] = {}  # by pid, where to tell how it ended
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    while True:
        readable, _, _ = select.select([control.fileno(), woken], [], [])
        if woken in readable:
            os.read(woken, 4096)
            tell_ends(statuses)
        if control.fileno() in readable:
            request, descriptors, _, _ = socket.recv_fds(control, REQUEST_BYTES, 2)
            if not request:
                return None
            output, status = descriptors
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.dup2(output, 1)
                os.dup2(output, 2)
                for descriptor in (output, status, woken, wake, *statuses.values()):
                    os.close(descriptor)
                control.close()
                return become(json.loads(request))
            os.close(output)
            os.write(status, NUMBER.pack(pid))
            statuses[pid] = status


def tell_ends(statuses: dict[int, int]) -> None:
    while statuses:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        descriptor = statuses.pop(pid)
        with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
            os.write(descriptor, NUMBER.pack(os.waitstatus_to_exitcode(status)))
        os.close(descriptor)


def become(request: dict[str, Any]) -> str:
    """Take over what a fork would inherit and must not: environment, arguments and the state of `random`. Returns the code."""
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["-c", *request["arguments"]]
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    code: str = request["code"]
    return code


def main() -> None:
    for name in sys.argv[2:]:
        importlib.import_module(name)
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        raise RuntimeError(f"one of {', '.join(sys.argv[2:])} starts threads when imported, which a fork would lose")
    code = serve(socket.socket(fileno=int(sys.argv[1])))
    if code is not None:
        module = types.ModuleType("__main__")  # without a file: what is spawned does not look for this one
        sys.modules["__main__"] = module
        exec(compile(code, "<string>", "exec"), module.__dict__)  # noqa: S102 # the test's own


if __name__ == "__main__":
    main()
