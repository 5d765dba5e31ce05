"""A TLS connection with deadlines. Frames: a JSON object behind its length (u32, little endian), then bytes as it says.

Blocking sockets and threads, not an event loop: OpenSSL works on the socket itself and straight into the tensor's memory,
without the GIL and without the copies of a memory BIO.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import time
from typing import Any

from sternpost_checkpoint.ring.errors import RefusedError, RingError

STALL_SECONDS = 10.0
"""Without a single byte."""
SLOWEST_BYTES_PER_SECOND = 5 * 2**20
MAX_JSON_BYTES = 4 * 2**20

_LENGTH = struct.Struct("<I")
_CHUNK_BYTES = 2**20


def seconds_for(size: int) -> float:
    """How long the transfer of `size` bytes may take at most."""
    return STALL_SECONDS + size / SLOWEST_BYTES_PER_SECOND


class Channel:
    """One connection, from one thread at a time."""

    def __init__(self, connection: ssl.SSLSocket, peer: str) -> None:
        self._socket = connection
        self.peer = peer

    def send(self, data: bytes | memoryview, deadline: float) -> None:
        """Send all. Raises RingError after the deadline (of time.monotonic), or when the peer is gone."""
        view = memoryview(data).cast("B") if len(data) else memoryview(b"")
        try:
            for start in range(0, len(view), _CHUNK_BYTES):
                self._socket.settimeout(self._patience(deadline))
                self._socket.sendall(view[start : start + _CHUNK_BYTES])
        except (OSError, ValueError) as error:
            raise self._lost(error) from error

    def receive_into(self, target: memoryview, deadline: float) -> None:
        """Fill `target`. Raises RingError as `send`."""
        position, size, set_at = 0, len(target), -_CHUNK_BYTES
        receive = self._socket.recv_into
        try:
            while position < size:
                if position - set_at >= _CHUNK_BYTES or time.monotonic() + STALL_SECONDS > deadline:
                    self._socket.settimeout(self._patience(deadline))
                    set_at = position
                count = receive(target[position : position + _CHUNK_BYTES])
                if count == 0:
                    raise RingError(f"{self.peer} has ended the connection in the middle")
                position += count
        except (OSError, ValueError) as error:
            raise self._lost(error) from error

    def send_json(self, value: dict[str, Any], deadline: float) -> None:
        """Send an object."""
        data = json.dumps(value, separators=(",", ":")).encode()
        if len(data) > MAX_JSON_BYTES:
            raise RingError(f"a message of {len(data)} bytes is over the limit of {MAX_JSON_BYTES}")
        self.send(_LENGTH.pack(len(data)) + data, deadline)

    def receive_json(self, deadline: float) -> dict[str, Any]:
        """Receive an object. Raises RingError also for what is none, or too large."""
        head = bytearray(_LENGTH.size)
        self.receive_into(memoryview(head), deadline)
        (size,) = _LENGTH.unpack(head)
        if size > MAX_JSON_BYTES:
            raise RingError(f"{self.peer} announces a message of {size} bytes, over the limit of {MAX_JSON_BYTES}")
        data = bytearray(size)
        self.receive_into(memoryview(data), deadline)
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise RingError(f"{self.peer} has sent what is no JSON") from error
        if not isinstance(value, dict):
            raise RingError(f"{self.peer} has sent JSON that is no object")
        return value

    def receive_answer(self, deadline: float) -> dict[str, Any]:
        """Receive the answer to a request. Raises RefusedError for a no."""
        value = self.receive_json(deadline)
        error = value.get("error")
        if isinstance(error, dict):
            raise RefusedError(str(error.get("kind"))[:20], f"{self.peer}: {str(error.get('message'))[:400]}")
        return value

    def close(self) -> None:
        """End it, without waiting for the other side."""
        self._socket.close()

    def _patience(self, deadline: float) -> float:
        left = deadline - time.monotonic()
        if left <= 0:
            raise RingError(f"{self.peer} is too slow: the time for this is over")
        return min(left, STALL_SECONDS)

    def _lost(self, error: Exception) -> RingError:
        if isinstance(error, TimeoutError):
            return RingError(f"{self.peer} has stalled")
        return RingError(f"the connection to {self.peer} broke: {type(error).__name__}")


def connect(address: str, port: int, context: ssl.SSLContext, server_name: str, deadline: float) -> Channel:
    """Connect and shake hands. Raises RingError."""
    peer = f"peer {address}:{port}"
    plain: socket.socket | None = None
    try:
        left = max(deadline - time.monotonic(), 0.001)
        plain = socket.create_connection((address, port), timeout=min(left, STALL_SECONDS))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Channel(context.wrap_socket(plain, server_hostname=server_name), peer)
    except OSError as error:
        if plain is not None:
            plain.close()
        reason = "certificate" if isinstance(error, ssl.SSLCertVerificationError) else type(error).__name__
        raise RingError(f"{peer} cannot be reached: {reason}") from error
