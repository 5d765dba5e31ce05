"""What ranks print: read by threads, prefixed line by line, written by one thread."""

from __future__ import annotations

import os
import queue
import select
import threading
import time
from collections import deque

MAX_LINE = 64 * 1024
MAX_TAIL_LINES = 20
MAX_TAIL_LINE = 512
STDOUT = 1
STDERR = 2


class Sink:
    """Writes pieces of whole lines to the launcher's own stdout and stderr, in the order they came.

    Ranks wait while the reader of those stalls, as they would without a launcher; the launcher itself does not wait.
    Pieces that cannot be written because the reader is gone or its disk is full are dropped: ranks go on.
    """

    def __init__(self) -> None:
        self._pieces: queue.Queue[tuple[int, bytes]] = queue.Queue(maxsize=64)
        self._lost = 0
        threading.Thread(target=self._write_all, name="output", daemon=True).start()

    def put(self, descriptor: int, piece: bytes) -> None:
        """Write `piece` in its turn; waits while many others are waiting."""
        self._pieces.put((descriptor, piece))

    def put_without_waiting(self, piece: bytes) -> None:
        """Write `piece` to stderr in its turn, or drop it if too many others are waiting."""
        try:
            self._pieces.put_nowait((STDERR, piece))
        except queue.Full:
            self._lost += 1

    def flush(self, seconds: float) -> None:
        """Wait until all is written, at most `seconds`."""
        deadline = time.monotonic() + seconds
        with self._pieces.all_tasks_done:
            while self._pieces.unfinished_tasks and time.monotonic() < deadline:
                self._pieces.all_tasks_done.wait(max(0.0, deadline - time.monotonic()))

    def _write_all(self) -> None:
        while True:
            descriptor, piece = self._pieces.get()
            if self._lost:
                lost, self._lost = self._lost, 0
                _write(STDERR, f"[sternpost] {lost} log lines were dropped: the reader of the log stalls\n".encode())
            _write(descriptor, piece)
            self._pieces.task_done()


def _write(descriptor: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            select.select([], [descriptor], [], 1.0)
        except OSError:
            return  # the reader is gone or the disk full, and nobody is left who could be told


class LineSplitter:
    """Cuts a stream of bytes into lines of at most `MAX_LINE` bytes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that are complete now, without their line ends."""
        lines = (self._rest + piece).split(b"\n")
        self._rest = lines.pop()
        pieces = [cut for line in lines for cut in _cut(line)]
        while len(self._rest) > MAX_LINE:
            pieces.append(self._rest[:MAX_LINE])
            self._rest = self._rest[MAX_LINE:]
        return pieces

    def finish(self) -> list[bytes]:
        """The last line if it lacks its end."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


def _cut(line: bytes) -> list[bytes]:
    if len(line) <= MAX_LINE:
        return [line]
    return [line[start : start + MAX_LINE] for start in range(0, len(line), MAX_LINE)]


class RankOutput:
    """The two pipes of one rank, read until they are closed."""

    def __init__(self, sink: Sink, prefix: bytes) -> None:
        self._sink = sink
        self._prefix = prefix
        self._tail: deque[bytes] = deque(maxlen=MAX_TAIL_LINES)
        self._threads: list[threading.Thread] = []

    def open(self) -> tuple[int, int]:
        """The writing ends for the rank's stdout and stderr, which the caller closes once the rank is started."""
        writers = []
        for descriptor in (STDOUT, STDERR):
            reader, writer = os.pipe()
            writers.append(writer)
            thread = threading.Thread(
                target=self._read, args=(reader, descriptor), name=f"output-{descriptor}", daemon=True
            )
            thread.start()
            self._threads.append(thread)
        return writers[0], writers[1]

    @property
    def closed(self) -> bool:
        """Whether everything was read. A descendant that holds a pipe keeps it open after the rank's end."""
        return not any(thread.is_alive() for thread in self._threads)

    def tail(self) -> str:
        """The last lines of stderr."""
        return "\n".join(line.decode("utf-8", "replace") for line in list(self._tail))

    def _read(self, reader: int, descriptor: int) -> None:
        splitter = LineSplitter()
        try:
            while True:
                piece = os.read(reader, MAX_LINE)
                if not piece:
                    break
                self._emit(descriptor, splitter.feed(piece))
            self._emit(descriptor, splitter.finish())
        finally:
            os.close(reader)

    def _emit(self, descriptor: int, lines: list[bytes]) -> None:
        if not lines:
            return
        if descriptor == STDERR:
            self._tail.extend(line[:MAX_TAIL_LINE] for line in lines[-MAX_TAIL_LINES:])
        self._sink.put(descriptor, b"".join(self._prefix + line + b"\n" for line in lines))
