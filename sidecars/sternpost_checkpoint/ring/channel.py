"""Frames on a TLS connection: a JSON object behind its length (u32, little endian), then bytes as it says.

Blocking sockets and threads, not an event loop: OpenSSL decrypts into the tensor's own memory, without the GIL.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import time
from typing import Any

from sternpost_checkpoint.ring.errors import RefusedError, RingError
from sternpost_checkpoint.ring.stream import STALL_SECONDS, TlsStream

SLOWEST_BYTES_PER_SECOND = 5 * 2**20
MAX_JSON_BYTES = 4 * 2**20

_LENGTH = struct.Struct("<I")


def seconds_for(size: int) -> float:
    """How long the transfer of `size` bytes may take at most."""
    return STALL_SECONDS + size / SLOWEST_BYTES_PER_SECOND


class Channel:
    """One connection, from one thread at a time. Deadlines are of time.monotonic."""

    def __init__(self, stream: TlsStream) -> None:
        self._stream = stream

    @property
    def peer(self) -> str:
        """For messages."""
        return self._stream.peer

    def send(self, data: bytes | memoryview, deadline: float) -> None:
        """Send all. Raises RingError after the deadline, or when the peer is gone."""
        if len(data):
            self._stream.send(memoryview(data).cast("B"), deadline)

    def receive_into(self, target: memoryview, deadline: float) -> None:
        """Fill `target`. Raises RingError as `send`."""
        self._stream.receive_into(target, deadline)

    def wait(self, deadline: float) -> None:
        """Wait for the first bytes of a request."""
        self._stream.wait(deadline)

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
        self._stream.close()


def connect(address: str, port: int, context: ssl.SSLContext, server_name: str, deadline: float) -> Channel:
    """Connect and shake hands. Raises RingError."""
    peer = f"peer {address}:{port}"
    try:
        left = max(deadline - time.monotonic(), 0.001)
        plain = socket.create_connection((address, port), timeout=min(left, STALL_SECONDS))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise RingError(f"{peer} cannot be reached: {type(error).__name__}") from error
    try:
        return Channel(TlsStream(plain, context, peer, deadline=deadline, server_name=server_name))
    except RingError:
        plain.close()
        raise
