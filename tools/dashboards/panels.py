"""The kinds of panels that the dashboards are made of. Each has a title, a description and a unit: no panel goes without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, heatmap, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders.dashboard import DashboardLink, ThresholdsConfig
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    GraphThresholdsStyleMode,
    HeatmapCellLayout,
    LegendDisplayMode,
    LegendPlacement,
    ScaleDistribution,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataTransformerConfig,
    DynamicConfigValue,
    GridPos,
    Panel,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode

from tools.dashboards.look import FULL, GOOD, HALF, PROMETHEUS, TILE, Size, State, mapping, thresholds
from tools.dashboards.query import Query

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class PanelBuilder(Protocol):
    """What the builders of all kinds of panels have in common."""

    def build(self) -> Panel:
        """The panel as it goes into the JSON."""


class _Builder(PanelBuilder, Protocol):
    # The SDK's builders share no base class; only what is used here is named.
    def title(self, title: str) -> Any: ...

    def description(self, description: str) -> Any: ...

    def datasource(self, datasource: Any) -> Any: ...

    def grid_pos(self, grid_pos: GridPos) -> Any: ...

    def with_target(self, target: Any) -> Any: ...

    def unit(self, unit: str) -> Any: ...


B = TypeVar("B", bound=_Builder)


def _filled(
    builder: B, title: str, description: str, unit: str, *, size: Size, queries: Sequence[Query], as_table: bool = False
) -> B:
    builder.title(title)
    builder.description(description)
    builder.unit(unit)
    builder.datasource(PROMETHEUS)
    builder.grid_pos(GridPos(h=size.height, w=size.width, x=0, y=0))
    for letter, query in zip(LETTERS, queries, strict=False):
        builder.with_target(query.target(letter, table=as_table))
    return builder


def tile(
    title: str,
    description: str,
    unit: str,
    query: Query,
    *,
    steps: ThresholdsConfig | None = None,
    states: Sequence[State] = (),
    decimals: int | None = None,
    none: str = "–",  # noqa: RUF001 - a dash is what stands where there is no value
    size: Size = TILE,
    names: bool = False,
) -> stat.Panel:
    """One number, large; with `names` one for each series, beside its name."""
    panel = _filled(stat.Panel(), title, description, unit, size=size, queries=[query])
    panel.thresholds(steps or thresholds(GOOD)).no_value(none)
    panel.color_mode(BigValueColorMode.VALUE).graph_mode(
        BigValueGraphMode.NONE if query.instant or states else BigValueGraphMode.AREA
    )
    panel.text_mode(BigValueTextMode.VALUE_AND_NAME if names else BigValueTextMode.VALUE)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    if states:
        panel.mappings(mapping(states))
    if decimals is not None:
        panel.decimals(decimals)
    return panel


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    size: Size = HALF,
    stacked: bool = False,
    steps: ThresholdsConfig | None = None,
    low: float | None = 0,
    high: float | None = None,
    legend: Sequence[str] = ("lastNotNull", "max"),
    log: bool = False,
) -> timeseries.Panel:
    """Lines over time; the legend is a table of the reductions named in `legend`."""
    panel = _filled(timeseries.Panel(), title, description, unit, size=size, queries=queries)
    panel.legend(
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.TABLE)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(list(legend))
    )
    panel.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    panel.show_points(VisibilityMode.AUTO).line_width(1).fill_opacity(30 if stacked else 8)
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if steps is not None:
        panel.thresholds(steps)
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    if log:
        panel.scale_distribution(common.ScaleDistributionConfig().type(ScaleDistribution.LOG).log(10))
    elif low is not None:
        panel.min(low)
    if high is not None:
        panel.max(high)
    return panel


def bars(
    title: str, description: str, unit: str, *queries: Query, steps: ThresholdsConfig, size: Size = HALF
) -> bargauge.Panel:
    """A horizontal bar for each series."""
    panel = _filled(bargauge.Panel(), title, description, unit, size=size, queries=queries)
    panel.thresholds(steps).min(0).orientation(VizOrientation.HORIZONTAL).no_value("none")
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    return panel


def heat(title: str, description: str, unit: str, query: Query, *, scheme: str, size: Size = FULL) -> heatmap.Panel:
    """A row for each series, its colour the value: whoever is slower than the others stands out at any number of rows."""
    panel = _filled(heatmap.Panel(), title, description, "none", size=size, queries=[query])
    # The series are the rows: nothing is counted into buckets.
    panel.calculate(False).cell_gap(1).show_legend()
    panel.color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme(scheme).steps(64).reverse(False))
    panel.rows_frame(heatmap.RowsHeatmapOptions().layout(HeatmapCellLayout.AUTO).value("mean"))
    panel.cell_values(heatmap.CellValues().unit(unit).decimals(3))
    panel.mode(TooltipDisplayMode.SINGLE)
    return panel


def timeline(
    title: str, description: str, *queries: Query, states: Sequence[State], first: int = 1, size: Size = HALF
) -> statetimeline.Panel:
    """A bar for each series that changes its colour with the state."""
    panel = _filled(statetimeline.Panel(), title, description, "none", size=size, queries=queries)
    panel.mappings(mapping(states, first)).show_value(VisibilityMode.AUTO).merge_values(True).row_height(0.8)
    panel.legend(
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    return panel


@dataclass(frozen=True)
class Column:
    """The value of one query, a column of a table."""

    title: str
    query: Query
    unit: str = "short"
    steps: ThresholdsConfig | None = None
    """Colours the cell's text."""
    decimals: int | None = None


@dataclass(frozen=True)
class Labels:
    """The labels that are columns of a table, in this order, under these titles."""

    titles: Mapping[str, str]
    links: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Title and address of a link, by label."""


def grid(
    title: str, description: str, labels: Labels, *columns: Column, unit: str = "short", size: Size = FULL
) -> table.Panel:
    """A row for each set of labels, a column for each query; the queries are for the newest value."""
    panel = _filled(
        table.Panel(), title, description, unit, size=size, queries=[each.query for each in columns], as_table=True
    )
    panel.show_header(True).no_value("–")  # noqa: RUF001 - as in tiles
    panel.with_transformation(DataTransformerConfig(id_val="merge", options={}))
    # One query alone has its value in `Value`, several in `Value #A`, `Value #B`.
    fields = [f"Value #{letter}" for letter, _ in zip(LETTERS, columns, strict=False)]
    if len(columns) == 1:
        fields = ["Value"]
    order = [*labels.titles, *fields]
    panel.with_transformation(
        DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": {"Time": True},
                "indexByName": {name: index for index, name in enumerate(order)},
                "renameByName": dict(labels.titles)
                | {name: column.title for name, column in zip(fields, columns, strict=True)},
            },
        )
    )
    for column in columns:
        panel.override_by_name(column.title, _properties(column))
    for label, (text, url) in labels.links.items():
        link = DashboardLink(text).type(DashboardLinkType.LINK).url(url).build()
        panel.override_by_name(
            labels.titles[label], [DynamicConfigValue(id_val="links", value=[{"title": link.title, "url": link.url}])]
        )
    return panel


def _properties(column: Column) -> list[DynamicConfigValue]:
    properties = [DynamicConfigValue(id_val="unit", value=column.unit)]
    if column.decimals is not None:
        properties.append(DynamicConfigValue(id_val="decimals", value=column.decimals))
    if column.steps is not None:
        properties.append(DynamicConfigValue(id_val="thresholds", value=column.steps.build()))
        properties.append(DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"}))
    return properties
