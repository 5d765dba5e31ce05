"""The peer server: takes the previous worker's part, and gives what it has to any worker of the same job and attempt."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from sternpost_checkpoint.errors import CheckpointError
from sternpost_checkpoint.ring.channel import Channel, seconds_for
from sternpost_checkpoint.ring.errors import RefusedError, RingError
from sternpost_checkpoint.ring.holder import Holder
from sternpost_checkpoint.ring.keys import RingKeys
from sternpost_checkpoint.ring.protocol import (
    PROTOCOL,
    Describe,
    Hello,
    Holdings,
    Push,
    Read,
    parse_hello,
    parse_request,
)
from sternpost_checkpoint.ring.stream import STALL_SECONDS, TlsStream

_log = structlog.get_logger()

HANDSHAKE_SECONDS = 5.0
IDLE_SECONDS = 30.0
"""Between two requests of a connection."""
MAX_CONNECTIONS = 64
MAX_STRANGERS = 16
"""Connections that have not said a valid hello yet."""


@dataclass(frozen=True)
class Identity:
    """What a caller must belong to."""

    job_uid: str
    attempt: Callable[[], int]
    """Number of the current attempt, as far as this sidecar knows."""


class PeerServer:
    """Listens in threads of its own. A caller that misbehaves loses its connection, and nothing else happens."""

    def __init__(self, keys: RingKeys, identity: Identity, holder: Holder, instance: str) -> None:
        self._keys = keys
        self._identity = identity
        self._holder = holder
        self._instance = instance
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._strangers = 0
        self._stopping = False
        self._accepting: threading.Thread | None = None

    def start(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises OSError when it is taken."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=64)
        self._accepting = threading.Thread(target=self._accept, name="ring-accept", daemon=True)
        self._accepting.start()
        return int(self._listener.getsockname()[1])

    def stop(self) -> None:
        """Close everything."""
        self._stopping = True
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        if self._accepting is not None:
            self._accepting.join(timeout=5)

    def _accept(self) -> None:
        if self._listener is None:
            return
        while not self._stopping:
            try:
                connection, address = self._listener.accept()
            except OSError as error:
                if not self._stopping:
                    _log.warning("a connection was not accepted", reason=str(error))
                    time.sleep(0.05)  # out of descriptors: it will not be better at once
                continue
            with self._lock:
                full = len(self._open) >= MAX_CONNECTIONS or self._strangers >= MAX_STRANGERS
                if not full:
                    self._open.add(connection)
                    self._strangers += 1
            if full:
                connection.close()
                continue
            threading.Thread(
                target=self._serve, args=(connection, str(address[0])), name="ring-peer", daemon=True
            ).start()

    def _serve(self, connection: socket.socket, address: str) -> None:
        stranger = True
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            deadline = time.monotonic() + HANDSHAKE_SECONDS
            context = self._keys.current().server
            channel = Channel(TlsStream(connection, context, f"caller {address}", deadline=deadline))
            hello = self._greet(channel)
            with self._lock:
                self._strangers -= 1
                stranger = False
            while not self._stopping:
                self._answer(channel, hello)
        except (RingError, OSError) as error:
            self._say_why(error, address, stranger=stranger)
        finally:
            with self._lock:
                self._strangers -= stranger
                self._open.discard(connection)
            connection.close()

    def _say_why(self, error: Exception, address: str, *, stranger: bool) -> None:
        if stranger and not isinstance(error, RefusedError):
            # Port scanners and load balancers' probes: not worth a line each.
            _log.debug("a connection to the ring came to nothing", caller=address, reason=type(error).__name__)
        elif isinstance(error, _EndedError):
            return
        else:
            _log.warning("a peer's connection ends", caller=address, reason=str(error))

    def _greet(self, channel: Channel) -> Hello:
        deadline = time.monotonic() + HANDSHAKE_SECONDS
        try:
            hello = parse_hello(channel.receive_json(deadline))
            self._check_token(hello)
            self._check(hello)
        except RefusedError as error:
            self._refuse(channel, error)
            raise
        channel.send_json({"protocol": PROTOCOL, "instance": self._instance}, deadline)
        return hello

    def _check_token(self, hello: Hello) -> None:
        if not self._keys.current().accepts(hello.token):
            raise RefusedError("token", "the token is not this job's")

    def _check(self, hello: Hello) -> None:
        """Whoever has an old attempt gets nothing, also when its connection is older than the new one."""
        if hello.job != self._identity.job_uid:
            raise RefusedError("job", "this is another job's worker")
        current = self._identity.attempt()
        if hello.attempt < current:
            raise RefusedError("attempt", f"attempt {hello.attempt} is superseded by {current}")

    def _answer(self, channel: Channel, hello: Hello) -> None:
        try:
            channel.wait(time.monotonic() + IDLE_SECONDS)
            value = channel.receive_json(time.monotonic() + STALL_SECONDS)
        except RingError as error:
            raise _EndedError(str(error)) from error
        try:
            request = parse_request(value)
            self._check(hello)
            if isinstance(request, Holdings):
                self._send_holdings(channel)
            elif isinstance(request, Describe):
                self._send_description(channel, request)
            elif isinstance(request, Read):
                self._send_tensors(channel, request)
            else:
                self._receive_part(channel, request)
        except RefusedError as error:
            self._refuse(channel, error)
            if error.kind in ("request", "attempt"):
                raise
        except RingError:
            raise
        except CheckpointError as error:
            self._refuse(channel, RefusedError("missing", str(error)))

    def _send_holdings(self, channel: Channel) -> None:
        entries = [holding.to_list() for holding in self._holder.holdings()]
        channel.send_json({"holdings": entries}, time.monotonic() + STALL_SECONDS)

    def _send_description(self, channel: Channel, request: Describe) -> None:
        with self._holder.open(request.step, request.run, request.rank) as state:
            data = state.description.to_bytes()
            deadline = time.monotonic() + seconds_for(len(data))
            channel.send_json({"bytes": len(data), "tensors": len(state.description.held)}, deadline)
            channel.send(data, deadline)

    def _send_tensors(self, channel: Channel, request: Read) -> None:
        with self._holder.open(request.step, request.run, request.rank) as state:
            tensors, held = state.description.meta.tensors, state.description.held
            if any(not 0 <= number < len(held) or not held[number] for number in request.tensors):
                raise RefusedError("missing", "a tensor that was asked for is not held here")
            total = sum(tensors[number].bytes for number in request.tensors)
            deadline = time.monotonic() + seconds_for(total)
            channel.send_json({"bytes": total}, deadline)
            for number in request.tensors:
                channel.send(state.tensor(number), deadline)

    def _receive_part(self, channel: Channel, request: Push) -> None:
        self._holder.receive(channel, request)

    @staticmethod
    def _refuse(channel: Channel, error: RefusedError) -> None:
        with contextlib.suppress(RingError):
            channel.send_json({"error": {"kind": error.kind, "message": str(error)}}, time.monotonic() + 2.0)


class _EndedError(RingError):
    """The other side has asked all it wanted."""
