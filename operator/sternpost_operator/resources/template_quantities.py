"""Quantities of a Pod template: the API server says of one that it cannot read only that it cannot read it, not where it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sternpost_operator.resources.explain import shown
from sternpost_operator.resources.location import Location, Problems

_QUANTITY = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?")
"""All that Kubernetes reads; what it then makes of a negative one it says itself."""


def check_quantities(spec: dict[str, Any]) -> Problems:
    """All of them that are none."""
    for location, value in _quantities(spec):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is None or is_number or (isinstance(value, str) and _QUANTITY.fullmatch(value)):
            continue
        yield ("spec", *location), f"is {shown(value)}; must be a quantity, such as 2, 500m or 512Mi"


def _quantities(spec: dict[str, Any]) -> Iterator[tuple[Location, Any]]:
    for group in ("initContainers", "containers"):
        for index, container in enumerate(_list(spec.get(group))):
            yield from _resources((group, index, "resources"), _field(container, "resources"))
    yield from _resources(("resources",), spec.get("resources"))
    yield from _values(("overhead",), spec.get("overhead"))
    for index, volume in enumerate(_list(spec.get("volumes"))):
        at: Location = ("volumes", index)
        size = _field(volume, "emptyDir", "sizeLimit")
        yield (*at, "emptyDir", "sizeLimit"), size
        claim: Location = ("ephemeral", "volumeClaimTemplate", "spec", "resources")
        yield from _resources((*at, *claim), _field(volume, *map(str, claim)))


def _resources(at: Location, resources: Any) -> Iterator[tuple[Location, Any]]:
    for kind in ("requests", "limits"):
        yield from _values((*at, kind), _field(resources, kind))


def _values(at: Location, values: Any) -> Iterator[tuple[Location, Any]]:
    for name, value in values.items() if isinstance(values, dict) else ():
        yield (*at, name), value


def _field(value: Any, *names: str) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
