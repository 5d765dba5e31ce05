"""What Sternpost puts into every worker Pod, and a template therefore must leave free."""

from __future__ import annotations

NAME_PREFIX = "sternpost-"
"""Of containers and volumes."""

LABEL_PREFIX = "sternpost.dev/"

ROOT_PATH = "/sternpost"
"""Nothing else is mounted at this path or below."""

METRICS_PORT = 9400
"""Of local rank 0; the next ranks have the next ports."""

EAGLE_EYE_PORT = 9470
CHECKPOINT_PORT = 9471
RING_PORT = 9472
RENDEZVOUS_PORT = 29_400
RENDEZVOUS_PORTS = 64
"""How many ports `MASTER_PORT` is chosen from, in turn."""

RANK_VARIABLES = frozenset(
    {
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "GROUP_RANK",
        "NODE_RANK",
        "MASTER_ADDR",
        "MASTER_PORT",
    }
)
VARIABLE_PREFIXES = ("STERNPOST_", "PET_")


def is_reserved_variable(name: str) -> bool:
    """Whether Sternpost sets this environment variable of the trainer itself."""
    return name in RANK_VARIABLES or name.startswith(VARIABLE_PREFIXES)


def reserved_ports(ranks_per_worker: int) -> dict[range, str]:
    """Ports that Sternpost listens at in a worker Pod, and what for."""
    return {
        range(METRICS_PORT, METRICS_PORT + ranks_per_worker): "the ranks' metrics",
        range(EAGLE_EYE_PORT, EAGLE_EYE_PORT + 1): "eagle-eye",
        range(CHECKPOINT_PORT, CHECKPOINT_PORT + 1): "the checkpoint sidecar",
        range(RING_PORT, RING_PORT + 1): "the ring of the checkpoint sidecars",
        range(RENDEZVOUS_PORT, RENDEZVOUS_PORT + RENDEZVOUS_PORTS): "the rendezvous of the ranks",
    }


def reserved_port_names(ranks_per_worker: int) -> frozenset[str]:
    """Names of those ports that are listed in the Pod."""
    return frozenset(
        {"eagle-eye", "checkpoint", "ring", "rendezvous", *(f"metrics-{rank}" for rank in range(ranks_per_worker))}
    )
