"""The chart as the cluster tests install it."""

from __future__ import annotations

import json
from typing import Any

from harness import folders, images
from harness.commands import CommandError
from kube import Kube

RELEASE = "sternpost"
SYSTEM = "sternpost-system"
CHART = folders.ROOT / "charts" / "sternpost"


def values() -> dict[str, Any]:
    """Images are in the nodes already; nodes may be cordoned, which the tests of slow nodes see does not happen to them."""
    repository, _, tag = images.REDIS_IMAGE.partition(":")
    return {
        "image": {"pullPolicy": "Never"},
        "nodeExclusion": {"enabled": True},
        "redis": {"image": {"repository": repository, "tag": tag, "pullPolicy": "Never"}},
    }


def release_is_there(kube: Kube) -> bool:
    """Whether somebody has installed it."""
    try:
        kube.helm("status", RELEASE, "--namespace", SYSTEM)
    except CommandError:
        return False
    return True


def install(kube: Kube, *options: str, more: dict[str, Any] | None = None) -> None:
    """Install it, or bring an installed one to what the checkout holds; waits until all of it is ready."""
    kube.helm(
        *("upgrade", "--install", RELEASE, CHART, "--namespace", SYSTEM, "--create-namespace"),
        # The resource definitions may be there already: tests of the operator alone need them, too.
        *("--values", "-", "--take-ownership", "--wait", "--timeout", "4m", *options),
        stdin=json.dumps({**values(), **(more or {})}),
        timeout=300,
    )
