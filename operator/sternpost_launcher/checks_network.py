"""Preflight checks of the network: the rendezvous port is free, worker 0 can be reached."""

from __future__ import annotations

import errno
import socket
import threading
import time
from typing import Optional

from sternpost_launcher.verdict import Verdict

RESOLVE_SECONDS = 20.0
"""How long a name may take to appear: cluster DNS caches that it does not exist for up to this long."""
CONNECT_SECONDS = 5.0
RETRY_SECONDS = 0.2


def check_rendezvous(port: int) -> Verdict:
    """Whether worker 0 can listen on `MASTER_PORT`."""
    try:
        _bind_once(port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return Verdict(
                "rendezvous",
                False,
                f"port {port} (MASTER_PORT) is taken: end the process that listens on it (`ss -ltnp`), "
                "or set another STERNPOST_PORT_RENDEZVOUS; the next attempt takes the next port",
            )
        return Verdict("rendezvous", False, f"cannot listen on port {port} (MASTER_PORT): {error.strerror or error}")
    return Verdict("rendezvous", True, f"port {port} is free")


def check_peer(
    name: str,
    address: str,
    port: int,
    cancelled: threading.Event,
    *,
    resolve_seconds: float = RESOLVE_SECONDS,
    connect_seconds: float = CONNECT_SECONDS,
) -> Verdict:
    """Whether `name` (the master's address) resolves and worker 0's eagle-eye accepts a connection.

    Both are retried until their seconds are over: Pods and their DNS records come up in any order.
    """
    problem = _resolve(name, cancelled, resolve_seconds)
    if problem is not None:
        return Verdict(
            "peer",
            False,
            f"peer unreachable: {name} does not resolve after {resolve_seconds:.0f} s ({problem}); "
            "check the job's headless Service and the cluster's DNS",
        )
    started = time.monotonic()
    while True:
        left = connect_seconds - (time.monotonic() - started)
        try:
            with socket.create_connection((address, port), timeout=max(0.1, left)):
                break
        except OSError as error:
            waited = time.monotonic() - started
            if waited + RETRY_SECONDS >= connect_seconds or cancelled.wait(RETRY_SECONDS):
                return Verdict(
                    "peer",
                    False,
                    f"peer unreachable: {address}:{port} (worker 0) refused for {waited:.0f} s "
                    f"({error.strerror or error}); check worker 0's Pod, network policies and the node's network",
                )
    return Verdict("peer", True, f"worker 0 answers at {address}:{port} in {(time.monotonic() - started) * 1e3:.0f} ms")


def _resolve(name: str, cancelled: threading.Event, seconds: float) -> Optional[str]:
    """None when it resolves, else the last problem. The resolver cannot be interrupted, hence the thread."""
    deadline = time.monotonic() + seconds
    problem = ["the resolver does not answer"]

    def look_up() -> None:
        while True:
            try:
                socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                problem[0] = str(error)
            else:
                problem.clear()
                return
            if time.monotonic() + RETRY_SECONDS >= deadline or cancelled.wait(RETRY_SECONDS):
                return

    thread = threading.Thread(target=look_up, name="resolve", daemon=True)
    thread.start()
    thread.join(seconds)
    return problem[0] if problem else None


def _bind_once(port: int) -> None:
    """Bind and let go again. Nothing listens meanwhile: an early rank of another worker must not reach this socket."""
    if socket.has_dualstack_ipv6():
        try:
            with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as server:
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                _bind(server, "::", port)
                return
        except OSError as error:
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                raise
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        _bind(server, "0.0.0.0", port)  # noqa: S104 - where ranks of other machines will connect to


def _bind(server: socket.socket, address: str, port: int) -> None:
    # As servers do: connections of an earlier attempt that linger in TIME_WAIT do not count; a listener does.
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, port))
