"""Dashboards, alerts and their documentation name only metrics that the code exports, with labels that these have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from known_metrics import TARGET_LABELS, Series, known_series
from panel_queries import load, queries

ROOT = Path(__file__).parents[3]
RULES = sorted((ROOT / "charts" / "sternpost" / "rules").glob("*.yaml"))
KNOWN = known_series()
PROMETHEUS_OWN = {"up": Series("up", "gauge", frozenset(), TARGET_LABELS | {"job_name"})}
ALL = KNOWN | PROMETHEUS_OWN

_NAME = re.compile(r"\b(?:sternpost_\w+|up)\b")
_SELECTOR = re.compile(r"\b(?P<name>sternpost_\w+|up)\{(?P<matchers>[^}]*)\}")
_MATCHER = re.compile(r"(?P<label>\w+)\s*(?:=~|!~|!=|=)\s*\"")
_RATE = re.compile(r"\b(?:rate|increase)\(\s*(?P<name>sternpost_\w+)")

EXPRESSIONS = [pytest.param(asked.expr, id=str(asked)) for asked in queries(load())] + [
    pytest.param(rule["expr"], id=f"{path.name} / {rule['alert']}")
    for path in RULES
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]


@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_a_query_names_what_exists(expr: str) -> None:
    names = _NAME.findall(re.sub(r'"[^"]*"', '""', expr))
    assert names, "it asks for nothing of ours"
    assert set(names) <= set(ALL)


@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_labels_are_those_of_the_series(expr: str) -> None:
    for selector in _SELECTOR.finditer(expr):
        labels = set(_MATCHER.findall(selector["matchers"]))
        assert labels <= ALL[selector["name"]].labels, selector.group()


@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_only_what_counts_up_has_a_rate(expr: str) -> None:
    for name in _RATE.findall(expr):
        assert ALL[name].kind != "gauge", f"{name} is a gauge"


@pytest.mark.parametrize(
    "series", [each for each in KNOWN.values() if each.kind != "gauge"], ids=lambda each: each.name
)
def test_what_counts_names_no_job(series: Series) -> None:
    """Counters live as long as their process: a label for each job would make them grow for ever."""
    assert not series.own_labels & {"job", "job_name", "job_uid", "namespace", "attempt"}


def test_the_documentation_lists_every_metric_and_no_other() -> None:
    text = (ROOT / "docs" / "observability.md").read_text()
    listed = set(re.findall(r"^\| `(sternpost_\w+)`", text, flags=re.MULTILINE))
    exported = {
        re.sub(r"_(sum|count|bucket)$", "", name) for name in KNOWN if KNOWN[name].kind in ("summary", "histogram")
    }
    exported |= {name for name in KNOWN if KNOWN[name].kind in ("counter", "gauge")}
    assert listed == exported
