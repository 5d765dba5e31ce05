"""For all tests: the same examples each time, so that a failure is the change's and can be repeated."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("sternpost", derandomize=True, database=None, deadline=None)
settings.load_profile("sternpost")

# Suites that several test modules run: their asserts tell as much as those of the modules.
pytest.register_assert_rewrite("memory_store_conformance", "memory_server", "redis_server", "store_conformance")
