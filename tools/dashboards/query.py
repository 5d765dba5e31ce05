"""What a panel asks Prometheus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.models.prometheus import PromQueryFormat


@dataclass(frozen=True)
class Query:
    """One PromQL expression; `legend` names its series by their labels: `{{pod}}`."""

    expr: str
    legend: str = ""
    instant: bool = False
    """Only the newest value: for tables and bars."""

    def target(self, ref_id: str, *, table: bool) -> prometheus.Dataquery:
        """As Grafana's Prometheus data source takes it. The data source itself is the panel's."""
        target = prometheus.Dataquery().ref_id(ref_id).expr(self.expr)
        if self.legend:
            target.legend_format(self.legend)
        # Said explicitly: a target that says neither is sent as both by old versions.
        target = target.instant() if self.instant else target.range()
        return target.format(PromQueryFormat.TABLE if table else PromQueryFormat.TIME_SERIES)


def now(expr: str, legend: str = "") -> Query:
    """A query for the newest value only."""
    return Query(expr, legend, instant=True)


def quantiles(metric: str, by: str, selector: str, window: str, *shares: float) -> list[Query]:
    """Quantiles of a histogram, one query each; without `by` over all of it."""
    inner = f"sum by ({', '.join(filter(None, ('le', by)))}) (rate({metric}_bucket{selector}[{window}]))"
    prefix = f"{{{{{by}}}}} " if by else ""
    return [Query(f"histogram_quantile({share:g}, {inner})", f"{prefix}p{share * 100:g}") for share in shares]


def as_number(series: str, label: str, states: Sequence[str], by: str = "") -> str:
    """PromQL for the number, from 1 on, of the state whose series is 1: what a state timeline needs.

    `series` holds `@` where the matcher of `label` goes. States without a series, or at 0, are left out.
    """
    grouping = f"max by ({by})" if by else "max"
    return " or ".join(
        f"""{grouping} (({series.replace("@", f'{label}="{state}"')} == 1) * {number})"""
        for number, state in enumerate(states, 1)
    )
