"""The generated files: fresh, complete, laid out without gaps or overlaps, true to the names of the resources."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from panel_queries import load, panels, queries

from sternpost_checkpoint.client.metrics import SOURCES
from sternpost_eagle_eye.reporter.trainer_metrics import PHASES
from sternpost_operator.resources.training_job_status import Phase

ROOT = Path(__file__).parents[3]
BOARDS = load()
PANELS = [
    pytest.param(panel, id=f"{name.removesuffix('.json')}: {panel['title']}")
    for name, board in BOARDS.items()
    for panel in panels(board)
]


def boxes(board: dict[str, Any]) -> Iterator[tuple[str, dict[str, int]]]:
    """Where everything stands, headings too; of collapsed rows only the heading takes room."""
    for panel in board["panels"]:
        yield panel["title"], panel["gridPos"]


def test_the_files_are_what_the_code_says() -> None:
    command = [sys.executable, "-m", "tools.dashboards", "--check"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_there_is_one_for_the_platform_and_one_for_the_researcher() -> None:
    assert set(BOARDS) == {"platform.json", "researcher.json"}


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_is(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert len(panel["description"]) > 30, "one word is no description"
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


@pytest.mark.parametrize("panel", PANELS)
def test_several_series_have_names(panel: dict[str, Any]) -> None:
    if panel["type"] in ("stat", "table"):
        return
    assert all(target.get("legendFormat") for target in panel["targets"])


@pytest.mark.parametrize("panel", PANELS)
def test_thresholds_rise(panel: dict[str, Any]) -> None:
    steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
    assert not steps or steps[0]["value"] is None
    assert all(low["value"] < high["value"] for low, high in pairwise(steps[1:]))


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_has_what_grafana_needs(name: str) -> None:
    board = BOARDS[name]
    assert board["schemaVersion"] >= 41, "of the current Grafana"
    assert "id" not in board, "that is the database's"
    assert board["uid"].startswith("sternpost-")
    assert board["refresh"]
    assert board["time"]["to"] == "now"
    assert board["templating"]["list"][0]["type"] == "datasource"
    (link,) = board["links"]
    assert link["tags"] == board["tags"] == ["sternpost"]
    numbers = [each["id"] for panel in board["panels"] for each in (panel, *(panel.get("panels") or ()))]
    assert len(set(numbers)) == len(numbers)
    titles = Counter((panel["type"], panel["title"]) for panel in panels(board))
    assert titles.most_common(1)[0][1] == 1, "a title is also how people speak of a panel"


PROMETHEUS_ANNOTATION = {"step", "textFormat", "titleFormat", "useValueForTime"}
"""Fields of Grafana's Prometheus data source, which the schema of dashboards leaves to it."""


def unknown_fields(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """What we say and the schema does not keep."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key not in theirs:
                yield f"{path}/{key}"
            else:
                yield from unknown_fields(value, theirs[key], f"{path}/{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from unknown_fields(one, other, f"{path}[{number}]")
    elif ours != theirs:
        yield f"{path}: {ours!r} becomes {theirs!r}"


@pytest.mark.parametrize("name", BOARDS)
def test_every_field_is_one_of_grafanas_schema(name: str) -> None:
    register_default_plugins()
    read = Dashboard.from_json(BOARDS[name])
    again = json.loads(json.dumps(read, cls=JSONEncoder))
    strange = [
        path for path in unknown_fields(BOARDS[name], again) if path.rpartition("/")[2] not in PROMETHEUS_ANNOTATION
    ]
    assert not strange


@pytest.mark.parametrize("name", BOARDS)
def test_nothing_overlaps_and_lines_are_full(name: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    for title, box in boxes(BOARDS[name]):
        assert box["x"] + box["w"] <= 24
        for x in range(box["x"], box["x"] + box["w"]):
            for y in range(box["y"], box["y"] + box["h"]):
                assert (x, y) not in taken, f"{title} lies over {taken[x, y]}"
                taken[x, y] = title
    height = max(y for _, y in taken) + 1
    gaps = [(x, y) for y in range(height) for x in range(24) if (x, y) not in taken]
    assert not gaps, f"nothing at {gaps[:5]}"


def test_no_data_source_is_named() -> None:
    found = [panel["datasource"]["uid"] for board in BOARDS.values() for panel in panels(board)]
    found += [each["datasource"]["uid"] for board in BOARDS.values() for each in board["annotations"]["list"]]
    assert set(found) == {"${datasource}"}


def test_each_dashboard_leads_to_the_other() -> None:
    """By their common tag; and from the table of jobs to the job itself."""
    (table,) = [panel for panel in panels(BOARDS["platform.json"]) if panel["type"] == "table"]
    urls = [
        link["url"]
        for override in table["fieldConfig"]["overrides"]
        for each in override["properties"]
        if each["id"] == "links"
        for link in each["value"]
    ]
    (url,) = urls
    assert url.startswith(f"/d/{BOARDS['researcher.json']['uid']}?")
    names = {each["name"] for each in BOARDS["researcher.json"]["templating"]["list"]}
    assert {"namespace", "job"} <= names
    assert "var-namespace=" in url
    assert "var-job=" in url


@pytest.mark.parametrize(
    ("title", "states"),
    [
        ("Phase", [str(phase) for phase in Phase]),
        ("Phase of the job", [str(phase) for phase in Phase]),
        ("Phase of the trainers", list(PHASES)),
        ("Restored from", list(SOURCES)),
    ],
)
def test_states_are_those_of_the_code(title: str, states: list[str]) -> None:
    (panel,) = [each for each in panels(BOARDS["researcher.json"]) if each["title"] == title]
    (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
    shown = [mapping["options"][str(number)]["text"] for number in range(1, len(mapping["options"]) + 1)]
    assert shown == states
    (expr,) = {each.expr for each in queries(BOARDS) if each.panel == title}
    assert all(f'="{state}"' in expr for state in states)
