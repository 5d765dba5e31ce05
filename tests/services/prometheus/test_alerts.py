"""The alert rules, as Prometheus itself reads and evaluates them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from prometheus_server import program

RULES = sorted((Path(__file__).parents[3] / "charts" / "sternpost" / "rules").glob("*.yaml"))
TESTS = sorted((Path(__file__).parent / "rules").glob("*_test.yaml"))


def promtool(*arguments: str) -> None:
    result = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_rules_are_valid(path: Path) -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", str(path))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_alerts_fire_when_they_should_and_only_then(path: Path) -> None:
    promtool("test", "rules", str(path))
