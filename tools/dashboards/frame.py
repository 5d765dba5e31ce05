"""From rows of panels to a dashboard: positions, ids, variables, links and annotations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    GridPos,
    Panel,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from tools.dashboards.look import GRID_WIDTH, PROMETHEUS
from tools.dashboards.panels import PanelBuilder

TAG = "sternpost"
"""By it each dashboard finds the other."""
PLATFORM_UID = "sternpost-platform"
RESEARCHER_UID = "sternpost-researcher"
"""Ids of the dashboards themselves: their addresses, and so bookmarks and links, outlive an upgrade of the chart."""


@dataclass(frozen=True)
class Row:
    """Panels below a heading, laid out from left to right."""

    title: str
    panels: Sequence[PanelBuilder]
    collapsed: bool = False


class _Built(Builder[Panel]):
    """Hands a finished panel to the SDK, which takes builders."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel

    def build(self) -> Panel:
        """It is built already."""
        return self._panel


class _Event(AnnotationQuery):
    """An annotation of a Prometheus data source; the SDK has no fields for how it reads."""

    def __init__(self, what: Annotation) -> None:
        super().__init__(name=what.name, datasource=PROMETHEUS, icon_color=what.color, expr=what.expr)
        self._what = what

    def to_json(self) -> dict[str, object]:
        """With the fields that Grafana's Prometheus data source reads."""
        return super().to_json() | {
            "titleFormat": self._what.title,
            "textFormat": self._what.text,
            "useValueForTime": "on" if self._what.value_is_time else False,
            "step": "15s",
        }


@dataclass(frozen=True)
class Annotation(Builder[AnnotationQuery]):
    """A query whose series are events."""

    name: str
    expr: str
    color: str
    title: str
    """May name labels: `{{kind}}`."""
    text: str
    value_is_time: bool = False
    """The value is when it was, in milliseconds; otherwise an event lasts as long as the value is above 0."""

    def build(self) -> AnnotationQuery:
        """As it goes into the JSON."""
        return _Event(self)


def data_source() -> builders.DatasourceVariable:
    """Which Prometheus to ask."""
    return builders.DatasourceVariable("datasource").type("prometheus").label("Data source")


def variable(name: str, label: str, query: str, description: str, *, several: bool = False) -> builders.QueryVariable:
    """A choice among the values that Prometheus knows; `several` begins with all."""
    result = (
        builders.QueryVariable(name)
        .label(label)
        .description(description)
        .query(query)
        .datasource(PROMETHEUS)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.NATURAL_ASC)
    )
    if several:
        # `.*` and not a list of all: a thousand workers in each query would be too long an address.
        result.multi(True).include_all(True).all_value(".*")
        result.current(VariableOption(selected=True, text=["All"], value=["$__all"]))
    return result


def dashboard(
    uid: str,
    title: str,
    description: str,
    *,
    span: str,
    refresh: str,
    variables: Sequence[builders.QueryVariable],
    rows: Sequence[Row],
    annotations: Sequence[Annotation] = (),
) -> Dashboard:
    """`span` is how far back it looks: `now-6h`."""
    result = (
        builders.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .time(span, "now")
        .refresh(refresh)
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .editable()
        .with_variable(data_source())
        .link(
            builders.DashboardLink("Sternpost")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .icon("external link")
            .tooltip("The other dashboard, for the same time")
            .as_dropdown(False)
            .include_vars(True)
            .keep_time(True)
        )
    )
    for each in variables:
        result.with_variable(each)
    for annotation in annotations:
        result.annotation(annotation)
    _place(result, rows)
    return result.build()


def _place(result: builders.Dashboard, rows: Sequence[Row]) -> None:
    top = 0
    number = 0
    for row in rows:
        number += 1
        heading = builders.Row(row.title).id(number).grid_pos(GridPos(h=1, w=GRID_WIDTH, x=0, y=top))
        top += 1
        panels = [builder.build() for builder in row.panels]
        for panel in panels:
            number += 1
            panel.id_val = number
        bottom = _flow(panels, top)
        if row.collapsed:
            for panel in panels:
                heading.with_panel(_Built(panel))
            result.with_row(heading)
        else:
            result.with_row(heading)
            for panel in panels:
                result.with_panel(_Built(panel))
            top = bottom


def _flow(panels: Sequence[Panel], top: int) -> int:
    """From left to right, a new line where one is full; returns where the next row begins."""
    left = height = 0
    for panel in panels:
        place = panel.grid_pos
        if place is None:
            raise ValueError(f"panel {panel.title!r} has no size")
        if left + place.w > GRID_WIDTH:
            left, top, height = 0, top + height, 0
        place.x, place.y = left, top
        left += place.w
        height = max(height, place.h)
    return top + height
