"""How the operator is set up: options of `sternpost operator`, each also an environment variable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sternpost_operator.manifests.images import Images


@dataclass(frozen=True)
class Options:
    """All of it."""

    namespace: str
    """The operator's own: of the Lease and the outbox."""
    identity: str
    """Of this replica."""
    images: Images
    watch_namespaces: tuple[str, ...] = ()
    """None: all."""
    metrics_namespaces: tuple[str, ...] = ()
    """Where Prometheus may be; none: anywhere."""
    memory_url: str = ""
    memory_shared_spaces: tuple[str, ...] = ()
    """Spaces of the memory service that jobs of any namespace may name."""
    memory_token_file: Path | None = None
    port: int = 8080
    """Of /metrics, /healthz and /readyz; 0 for a free one."""
    host: str = "0.0.0.0"  # noqa: S104 -- the kubelet and Prometheus come from elsewhere
    cordon: bool = False
    drain: bool = False
    uncordon_seconds: float = 600.0
    """For how long the evidence must be gone before a node is given back."""
    cordon_max_share: float = 0.1
    """Of the nodes, that may be cordoned."""
    hardware: tuple[tuple[str, str], ...] = ()
    """Node conditions that are evidence of bad hardware: type and the status that says so."""


def parse_conditions(text: str) -> tuple[tuple[str, str], ...]:
    """`GpuHealthy=False,KernelDeadlock=True`; raises `ValueError`."""
    found: list[tuple[str, str]] = []
    for part in names(text):
        kind, equals, status = part.partition("=")
        if not equals or not kind.strip() or status.strip() not in ("True", "False", "Unknown"):
            raise ValueError(f"{part!r} is no condition; give TYPE=STATUS with a status of True, False or Unknown")
        if kind.strip() == "Ready":
            raise ValueError("Ready is no evidence of bad hardware: a node that is not ready is left anyhow")
        found.append((kind.strip(), status.strip()))
    return tuple(found)


def names(text: str) -> Sequence[str]:
    """The parts of a comma list, without blanks and empty ones."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
