"""For all tests: the same examples each time, so that a failure is the change's and can be repeated."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("sternpost", derandomize=True, database=None, deadline=None)
settings.load_profile("sternpost")
