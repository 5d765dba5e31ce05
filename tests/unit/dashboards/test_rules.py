"""Every alert tells what to do, has a page that says more, and a test with promtool."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
RULES = ROOT / "charts" / "sternpost" / "rules"
TESTS = ROOT / "tests" / "services" / "prometheus" / "rules"
ALERTS = [
    pytest.param(path, rule, id=rule["alert"])
    for path in sorted(RULES.glob("*.yaml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text()


@pytest.mark.parametrize(("path", "rule"), ALERTS)
def test_an_alert_says_what_how_bad_and_what_to_do(path: Path, rule: dict[str, Any]) -> None:
    assert rule["alert"].startswith("Sternpost")
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]
    assert len(rule["annotations"]["description"]) > 80
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{rule['alert'].lower()}"


@pytest.mark.parametrize(("path", "rule"), ALERTS)
def test_its_runbook_has_the_three_parts(path: Path, rule: dict[str, Any]) -> None:
    section = re.search(rf"^## {rule['alert']}$(.*?)(?=^## |\Z)", RUNBOOKS, flags=re.MULTILINE | re.DOTALL)
    assert section, f"docs/runbooks.md has no section {rule['alert']}"
    for part in ("**Means.**", "**Look at.**", "**Do.**"):
        assert part in section[1]


def test_no_runbook_is_about_an_alert_that_is_gone() -> None:
    assert set(re.findall(r"^## (Sternpost\w+)$", RUNBOOKS, flags=re.MULTILINE)) == {str(each.id) for each in ALERTS}


@pytest.mark.parametrize(("path", "rule"), ALERTS)
def test_it_is_tested_firing_and_silent(path: Path, rule: dict[str, Any]) -> None:
    tests = yaml.safe_load((TESTS / f"{path.stem}_test.yaml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"] if case["alertname"] == rule["alert"]]
    assert any(case["exp_alerts"] for case in cases), "no test in which it fires"
    assert any(not case["exp_alerts"] for case in cases), "no test in which it does not"
