"""What is tested on a real API server that nobody else uses: no scheduler, no controllers, no nodes."""

from __future__ import annotations

from pathlib import Path

import pytest
from call_limits import limit_calls

TEST_SECONDS = 300
"""For a test that does not say otherwise; what it waits for has shorter limits."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    limit_calls(items, Path(__file__).parent, TEST_SECONDS)
