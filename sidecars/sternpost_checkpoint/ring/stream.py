"""TLS over a blocking socket, through memory BIOs, with deadlines.

A wrapped socket reads each TLS record (16 KiB) with two system calls. Here 256 KiB are read at once and decrypted from memory
straight into the target: a fifth less CPU time per byte, and so much more throughput where the reader's core is the limit.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from typing import cast

from sternpost_checkpoint.ring.errors import RingError

STALL_SECONDS = 10.0
"""Without a single byte."""

_PIECE_BYTES = 256 * 1024


class TlsStream:
    """One end of a connection, for one thread at a time. Raises RingError naming `peer` for all that can go wrong."""

    def __init__(
        self,
        plain: socket.socket,
        context: ssl.SSLContext,
        peer: str,
        *,
        deadline: float,
        server_name: str | None = None,
    ) -> None:
        """Shake hands, as the server if there is no `server_name`."""
        self.peer = peer
        self._socket = plain
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_name is None, server_hostname=server_name
        )
        self._buffer = memoryview(bytearray(_PIECE_BYTES))
        try:
            self._shake_hands(deadline)
        except (OSError, ValueError) as error:
            raise self._lost(error) from error

    def send(self, data: memoryview, deadline: float) -> None:
        """Send all of `data` before the deadline (of time.monotonic)."""
        try:
            for start in range(0, len(data), _PIECE_BYTES):
                piece, position = data[start : start + _PIECE_BYTES], 0
                while position < len(piece):
                    position += self._tls.write(piece[position:])
                self._flush(deadline)
        except (OSError, ValueError) as error:
            raise self._lost(error) from error

    def receive_into(self, target: memoryview, deadline: float) -> None:
        """Fill `target` before the deadline."""
        position, size = 0, len(target)
        # typeshed knows neither memoryview nor the count that comes back with a buffer.
        read = cast("Callable[[int, memoryview], int]", self._tls.read)
        try:
            while position < size:
                try:
                    count = read(size - position, target[position:])
                except ssl.SSLWantReadError:
                    self._fill(deadline)
                    continue
                if count == 0:
                    raise RingError(f"{self.peer} has ended the connection in the middle")
                position += count
        except (OSError, ValueError) as error:
            raise self._lost(error) from error

    def wait(self, deadline: float) -> None:
        """Wait for the first bytes of what comes next: here silence is no stall."""
        if self._incoming.pending or self._tls.pending():
            return
        try:
            self._fill(deadline, stall=float("inf"))
        except (OSError, ValueError) as error:
            raise self._lost(error) from error

    def close(self) -> None:
        """End it, without waiting for the other side."""
        self._socket.close()

    def _shake_hands(self, deadline: float) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush(deadline)
                self._fill(deadline)
                continue
            except ssl.SSLError:
                with contextlib.suppress(OSError, RingError):
                    self._flush(deadline)  # the alert that says why
                raise
            self._flush(deadline)
            return

    def _flush(self, deadline: float) -> None:
        if self._outgoing.pending:
            self._socket.settimeout(self._patience(deadline))
            self._socket.sendall(self._outgoing.read())

    def _fill(self, deadline: float, stall: float | None = None) -> None:
        self._socket.settimeout(self._patience(deadline, stall))
        count = self._socket.recv_into(self._buffer)
        if count == 0:
            raise RingError(f"{self.peer} has ended the connection in the middle")
        self._incoming.write(self._buffer[:count])

    def _patience(self, deadline: float, stall: float | None = None) -> float:
        left = deadline - time.monotonic()
        if left <= 0:
            raise RingError(f"{self.peer} is too slow: the time for this is over")
        return min(left, STALL_SECONDS if stall is None else stall)

    def _lost(self, error: Exception) -> RingError:
        if isinstance(error, TimeoutError):
            return RingError(f"{self.peer} has stalled")
        what = (
            "its certificate is not trusted"
            if isinstance(error, ssl.SSLCertVerificationError)
            else type(error).__name__
        )
        return RingError(f"the connection to {self.peer} broke: {what}")
