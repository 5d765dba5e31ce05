"""Every query of the dashboards, asked of a Prometheus: for the tests with a local run and those on a cluster."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

DASHBOARDS = Path(__file__).parents[2] / "charts" / "sternpost" / "dashboards"
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::\w+)?\}|(\w+))")
_LABEL_VALUES = re.compile(r"label_values\((?:(?P<series>.+),\s*)?(?P<label>\w+)\)")


@dataclass(frozen=True)
class Asked:
    """One query and where it stands."""

    dashboard: str
    panel: str
    ref: str
    expr: str
    instant: bool = False

    def __str__(self) -> str:
        return f"{self.dashboard} / {self.panel} [{self.ref}]"


@dataclass(frozen=True)
class Window:
    """The time that the dashboard shows, Unix seconds."""

    start: float
    end: float
    rate_interval: str
    """At least four times the scrape interval, as Grafana makes it."""
    step: float = 1.0

    def builtin(self) -> dict[str, str]:
        """Grafana's own variables."""
        return {
            "__rate_interval": self.rate_interval,
            "__interval": self.rate_interval,
            "__range": f"{math.ceil(self.end - self.start)}s",
        }


class Prometheus:
    """The HTTP API of a Prometheus."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def close(self) -> None:
        self._client.close()

    def ready(self) -> bool:
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def instant(self, expr: str, at: float | None = None) -> list[dict[str, Any]]:
        """The series of a vector (or a scalar as one series without labels)."""
        return self._get("/api/v1/query", {"query": expr} | ({} if at is None else {"time": at}))

    def over(self, expr: str, window: Window) -> list[dict[str, Any]]:
        """The series over the window."""
        parameters = {"query": expr, "start": window.start, "end": window.end, "step": window.step}
        return self._get("/api/v1/query_range", parameters)

    def last_time(self, expr: str, start: float) -> float:
        """When it last had a value, Unix seconds: a reader looks at a job that runs, and panels about now are empty later."""
        found = self.over(expr, Window(start, time.time(), rate_interval=""))
        assert found, f"never since {start}: {expr}"
        return max(float(series["values"][-1][0]) for series in found)

    def label_values(self, label: str, series: str | None, window: Window) -> list[str]:
        parameters: dict[str, Any] = {"start": window.start, "end": window.end}
        if series:
            parameters["match[]"] = series
        return list(self._data(f"/api/v1/label/{label}/values", parameters))

    def _get(self, path: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        data = self._data(path, parameters)
        if data["resultType"] in ("scalar", "string"):
            return [{"metric": {}, "value": data["result"]}]
        return list(data["result"])

    def _data(self, path: str, parameters: Mapping[str, Any]) -> Any:
        response = self._client.get(path, params=dict(parameters))
        body = response.json()
        assert body["status"] == "success", f"{parameters.get('query') or parameters}: {body.get('error')}"
        return body["data"]


def load(folder: Path = DASHBOARDS) -> dict[str, dict[str, Any]]:
    """The dashboards by file name, as the chart ships them."""
    found = {path.name: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    assert found, f"no dashboards in {folder}"
    return found


def panels(board: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels but headings, those in collapsed rows too."""
    for panel in board["panels"]:
        if panel["type"] == "row":
            yield from panel.get("panels") or ()
        else:
            yield panel


def queries(boards: Mapping[str, Mapping[str, Any]]) -> list[Asked]:
    """Those of all panels and annotations."""
    found = []
    for name, board in boards.items():
        for panel in panels(board):
            found += [
                Asked(name, panel["title"], target["refId"], target["expr"], bool(target.get("instant")))
                for target in panel["targets"]
            ]
        found += [
            Asked(name, f"annotation {each['name']}", "Anno", each["expr"])
            for each in board["annotations"]["list"]
            if each.get("expr")
        ]
    return found


def substitute(expr: str, values: Mapping[str, str]) -> str:
    """Put in the variables as Grafana does; KeyError for one that is not known."""
    return _VARIABLE.sub(lambda match: values[match.group(1) or match.group(2)], expr)


def variables(
    board: Mapping[str, Any], prometheus: Prometheus, window: Window, chosen: Mapping[str, str]
) -> dict[str, str]:
    """The dashboard's variables with `chosen` values, which Prometheus must offer; all where several may be chosen."""
    values = window.builtin()
    for each in board["templating"]["list"]:
        if each["type"] != "query":
            continue
        name = each["name"]
        match = _LABEL_VALUES.fullmatch(each["query"])
        assert match, f"variable {name}: {each['query']!r} is no label_values(…)"
        series = match["series"]
        offered = prometheus.label_values(match["label"], series and substitute(series, values), window)
        assert offered, f"variable {name} offers nothing: {each['query']}"
        if name in chosen:
            assert chosen[name] in offered, f"variable {name} offers {offered}, not {chosen[name]}"
        values[name] = each["allValue"] if each.get("includeAll") else chosen.get(name, offered[0])
    return values


def unanswered(
    boards: Mapping[str, Mapping[str, Any]],
    prometheus: Prometheus,
    window: Window,
    chosen: Mapping[str, str],
    *,
    wanted: Callable[[Asked], bool] = lambda _: True,
) -> list[str]:
    """What came back empty, or with nothing but NaN, or not at all: one line each."""
    problems = []
    for name, board in boards.items():
        values = variables(board, prometheus, window, chosen)
        for asked in filter(wanted, queries({name: board})):
            expr = substitute(asked.expr, values)
            try:
                series = prometheus.instant(expr, window.end) if asked.instant else prometheus.over(expr, window)
            except AssertionError as error:
                problems.append(f"{asked}: {error}")
                continue
            if not any(map(_is_number, _samples(series))):
                problems.append(f"{asked}: {'nothing but NaN' if series else 'empty'}: {expr}")
    return problems


def _samples(series: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for each in series:
        for _, value in [each["value"]] if "value" in each else each["values"]:
            yield value


def _is_number(value: str) -> bool:
    return not math.isnan(float(value))
