"""Sizes and colours: one place, so that the dashboards look alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
)

GRID_WIDTH = 24

PROMETHEUS = DataSourceRef(type_val="prometheus", uid="${datasource}")
"""Whatever the reader chooses: a dashboard never knows the uid of a data source."""

GOOD, WARN, BAD, INFO, IDLE = "green", "orange", "red", "blue", "text"


@dataclass(frozen=True)
class Size:
    """Of a panel, in units of Grafana's grid of 24 columns."""

    width: int
    height: int


TILE = Size(3, 4)
QUARTER = Size(6, 8)
THIRD = Size(8, 8)
HALF = Size(12, 8)
FULL = Size(24, 9)
STRIP = Size(24, 5)


def thresholds(base: str, *steps: tuple[float, str]) -> builders.ThresholdsConfig:
    """`base` up to the first step; each step's colour from its value on."""
    return (
        builders.ThresholdsConfig()
        .mode(ThresholdsMode.ABSOLUTE)
        .steps([Threshold(value=None, color=base), *(Threshold(value=value, color=color) for value, color in steps)])
    )


@dataclass(frozen=True)
class State:
    """A state that a number stands for."""

    text: str
    color: str


def mapping(states: Sequence[State], first: int = 1) -> list[ValueMapping]:
    """Show the numbers from `first` on as these states."""
    options = {
        str(number): ValueMappingResult(text=state.text, color=state.color, index=index)
        for index, (number, state) in enumerate(enumerate(states, first))
    }
    return [ValueMap(options=options)]
