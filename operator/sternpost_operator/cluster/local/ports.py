"""Free ports of this machine, each given to one holder at a time.

A port is a file named like it. Ports of the range that the kernel gives to outgoing connections are avoided: such a
connection could take the port between its choice and its use.
"""

from __future__ import annotations

import os
import random
import re
import socket
import time
from pathlib import Path

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST = 20_000
_LAST = 65_535
_ENOUGH = 2_000
_HOLDER = re.compile(r"[\w./-]{1,400}")


class NoFreePortError(OSError):
    """Every port of the range is taken."""


def choose_range(low: int, high: int) -> range:
    """The ports to choose from when the kernel uses `low` to `high` itself."""
    if low - _FIRST >= _ENOUGH:
        return range(_FIRST, low)
    if _LAST - high >= _ENOUGH:
        return range(high + 1, _LAST + 1)
    return range(_FIRST, _LAST + 1)


def port_range() -> range:
    """The ports to choose from on this machine."""
    try:
        low, high = (int(part) for part in _EPHEMERAL.read_text().split())
    except (OSError, ValueError):
        low, high = 32_768, 60_999
    return choose_range(low, high)


def is_free(port: int) -> bool:
    """Whether nothing listens at the port, on any address."""
    for family, address in ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")):  # noqa: S104 - bound, never listened at
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((address, port))
        except OSError:
            if family == socket.AF_INET6 and not _has_ipv6():
                continue
            return False
    return True


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


class PortPool:
    """Ports that the Pods of one state folder hold."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, holder: str) -> int:
        """A port that nobody listens at and nobody else holds; raises `NoFreePortError`, `OSError`."""
        if not _HOLDER.fullmatch(holder):
            raise ValueError(f"{holder[:80]!r} cannot hold a port")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        candidates = port_range()
        start = random.randrange(len(candidates))  # noqa: S311 - to spread, not to hide
        for offset in range(len(candidates)):
            port = candidates[(start + offset) % len(candidates)]
            try:
                descriptor = os.open(
                    self._folder / str(port), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
                )
            except FileExistsError:
                continue
            with os.fdopen(descriptor, "w") as file:
                file.write(holder)
            if is_free(port):
                return port
            (self._folder / str(port)).unlink(missing_ok=True)
        raise NoFreePortError(f"no free port between {candidates[0]} and {candidates[-1]}; end what holds them")

    def release(self, prefix: str, *, older_than_seconds: float = 0) -> int:
        """Give back the ports whose holder begins with `prefix` and that were taken so long ago; how many."""
        released = 0
        for path, holder, taken_at in self._held():
            if holder.startswith(prefix) and time.time() - taken_at >= older_than_seconds:
                path.unlink(missing_ok=True)
                released += 1
        return released

    def held(self) -> dict[int, str]:
        """Who holds which port."""
        return {int(path.name): holder for path, holder, _ in self._held()}

    def _held(self) -> list[tuple[Path, str, float]]:
        found: list[tuple[Path, str, float]] = []
        try:
            paths = list(self._folder.iterdir())
        except FileNotFoundError:
            return found
        for path in paths:
            if path.name.isdigit():
                try:
                    found.append((path, path.read_text(errors="replace")[:400], path.stat().st_mtime))
                except FileNotFoundError:
                    continue
        return found
