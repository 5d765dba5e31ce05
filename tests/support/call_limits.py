"""Time limits for tests whose fixtures may take as long as it takes to build Kubernetes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest


def limit_calls(items: Iterable[pytest.Item], folder: Path, seconds: float) -> None:
    """Limit the tests below `folder` to `seconds`, or to what they say themselves, without their fixtures."""
    for item in items:
        if folder in item.path.parents:
            own = item.get_closest_marker("timeout")
            limit = own.args[0] if own and own.args else seconds
            item.add_marker(pytest.mark.timeout(limit, func_only=True), append=False)
