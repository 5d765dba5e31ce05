"""How the operator is set up: options of `sternpost operator`, each also an environment variable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from sternpost_operator.manifests.images import Images

HARDWARE_CONDITIONS = (
    "AcceleratedHardwareReady=False,KernelReady=False,"  # Amazon's node monitoring agent
    "GPUMissing=True,"  # Azure's node problem detector; its GPUXIDErrors may come of a program
    "KernelDeadlock=True,ReadonlyFilesystem=True"  # node-problem-detector
)
"""Node conditions that are evidence of bad hardware where nobody says otherwise, as in `parse_conditions`."""


@dataclass(frozen=True)
class Options:
    """All of it; raises `ValueError` for what makes no sense together."""

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

    def __post_init__(self) -> None:
        parts = urlsplit(self.memory_url)
        if self.memory_url and (parts.scheme not in ("http", "https") or not parts.netloc):
            raise ValueError(f"{self.memory_url!r} is no URL of a memory service; give http://HOST:PORT or https://…")
        if self.drain and not self.cordon:
            raise ValueError("--node-drain without --node-cordon drains nothing: only a cordoned node is drained")


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
